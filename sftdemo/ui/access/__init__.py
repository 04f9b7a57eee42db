"""Who may do what, and how much of it: the door, sign-in, rights of owner and visitors, and what they use up."""
