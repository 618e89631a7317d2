"""What the readers of documents promise."""
