"""Models: download, loading, masks, trials of fast paths, memory."""
