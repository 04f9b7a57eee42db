"""Cleaning on request: HTML, whitespace, personal data, duplicates, leaks."""
