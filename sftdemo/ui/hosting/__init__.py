"""For those who run the app for others: what it is doing, what outlives a restart, and how it ends."""
