"""Who may talk to whom, as a graph."""
