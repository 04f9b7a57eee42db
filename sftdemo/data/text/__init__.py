"""Text as such: its language, its script, its form without accidental differences, what is broken in it."""
