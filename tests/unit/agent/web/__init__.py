"""The HTTP server of the agent and what it serves."""
