"""Suggestion of a policy from recorded traffic."""
