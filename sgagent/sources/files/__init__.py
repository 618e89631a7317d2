"""Fetch definitions from files of this host, and notice when they change."""
