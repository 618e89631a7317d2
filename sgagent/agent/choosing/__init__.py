"""Decide which definitions and which mode are in force: the source's, or what somebody ordered by hand."""
