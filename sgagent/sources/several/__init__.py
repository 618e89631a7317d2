"""Union of several sources."""
