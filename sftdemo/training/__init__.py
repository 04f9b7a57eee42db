"""One training: from data to a saved model."""
