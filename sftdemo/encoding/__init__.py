"""Conversations to token ids and masks; packed batches."""
