"""The policy as a table of nftables: pure functions from values to values."""
