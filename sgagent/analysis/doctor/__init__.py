"""Influences of a host that can bypass, break or be broken by the policy: from typed facts to findings."""
