"""The codes of all checks."""

from __future__ import annotations

CODES = (
    "open_to_everyone",
    "sensitive_port_open",
    "database_without_closing_drop",
    "one_family_shut",
    "wide_management_port",
    "deny_before_accepts",
    "void_drop",
    "never_reached",
    "duplicate_rule",
    "contradicting_tie",
    "redundant_rule",
    "expiring_drop",
    "expired_rule",
    "unknown_object",
    "dns_ingress",
    "empty_object",
    "idle_prefix_list",
    "cidr_for_group",
    "one_sided_rule",
    "mixed_services",
    "mixed_environments",
    "needless_inner_accept",
    "too_many_rules",
    "unused_rule",
    "nothing_listens",
    "unreached_listener",
)
"""In the order in which they are documented."""

MOST_RULES = 100
"""Rules of a group, beyond which it is hard to oversee, unless the configuration says otherwise."""
