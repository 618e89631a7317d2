"""Measure what the compiled ruleset costs, beside a linear one of the same policy, always in the same run."""
