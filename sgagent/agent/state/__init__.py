"""The state directory: enforced definitions and their history, counters, and where links were found."""
