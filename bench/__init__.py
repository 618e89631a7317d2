"""Measure the costs of the compiled ruleset, beside a linear one of the same policy, in the same run."""
