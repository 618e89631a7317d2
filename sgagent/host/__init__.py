"""List this machine's links and addresses, and notify of their changes."""
