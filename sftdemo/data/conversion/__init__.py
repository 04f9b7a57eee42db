"""Rows to examples."""
