"""Fetch definitions from where they are kept, and notice when they change."""
