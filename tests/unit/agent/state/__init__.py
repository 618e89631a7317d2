"""Facts about the state directory."""
