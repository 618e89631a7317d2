"""Keep the kernel in step with the definitions, and tell how that goes."""
