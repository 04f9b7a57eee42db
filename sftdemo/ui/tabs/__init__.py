"""One class a tab, and what only that tab shows."""
