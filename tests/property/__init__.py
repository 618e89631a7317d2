"""State what holds for every input, and let hypothesis look for the one that breaks it."""
