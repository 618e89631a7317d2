"""The compiler: pure functions from a resolved policy to an nftables table."""
