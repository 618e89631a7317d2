"""State what each module does, one fact at a time."""
