"""nftables as typed values: the table, the plan that changes it, and its forms as JSON and text."""
