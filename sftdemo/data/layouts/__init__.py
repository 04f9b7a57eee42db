"""Which layout rows have and which column plays which role; nested rows made plain."""
