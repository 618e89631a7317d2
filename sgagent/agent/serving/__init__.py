"""Answer HTTP: metrics, and whether all is well."""
