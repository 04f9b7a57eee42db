"""Answering: several sides in one batch."""
