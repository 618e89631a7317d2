"""Names of rules, and the addresses that the DNS has for them (§12.3)."""
