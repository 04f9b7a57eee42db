"""What columns and cells hold: labels, prose, conversations, entities, answers."""
