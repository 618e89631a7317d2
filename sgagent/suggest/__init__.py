"""Suggestion of a policy from recorded traffic: read records, screen them, write rules, and prove these."""
