"""Source of type https: one document of a server, fetched within bounds of time and size."""
