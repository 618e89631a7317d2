"""The control socket: queries and commands to a running agent."""
