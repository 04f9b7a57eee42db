"""What a user asks for: check, evaluate, compare, export; trainings as child processes."""
