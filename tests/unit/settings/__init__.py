"""Facts about the configuration."""
