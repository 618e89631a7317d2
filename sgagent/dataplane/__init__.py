"""The data plane: apply plans to the kernel, read the table back, and read counters, sessions and logs."""
