"""Stand in for the world outside; each fake runs the contract suite of the real thing."""
