"""Facts about what carries plans out."""
