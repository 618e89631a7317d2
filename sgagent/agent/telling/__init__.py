"""Say how the agent is doing: in the log, to systemd, to the store, and as one value that others read."""
