"""What else could answer the same rows: no model, a linear one, the base with examples, another run, a file, an endpoint."""
