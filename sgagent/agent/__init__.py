"""The agent: keep the kernel's table equal to the definitions, and publish the state."""
