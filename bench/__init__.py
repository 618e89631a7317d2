"""Measure what the compiled ruleset costs, always beside a linear ruleset of the same policy in the same run."""
