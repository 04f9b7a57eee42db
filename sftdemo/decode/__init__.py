"""A decode step of few rows, compiled for this processor: weights are read once for all rows, nothing runs in Python per layer."""
