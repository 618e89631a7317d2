"""Show a verdict as a word in a frame, so that it can be seen also without colours."""

from __future__ import annotations

from sgagent.agent.web.markup import Element, tag
from sgagent.core.model import Mode, Policy


def verdict(policy: Policy, mode: Mode | None = None) -> Element:
    """Return the verdict; where nothing is dropped, what it would be."""
    is_observed = mode is Mode.OBSERVE and policy is Policy.DROP
    words = f"would {policy.value}" if is_observed else policy.value
    return tag("span", words, class_=f"badge {policy.value}")
