"""What every implementation of a seam owes to its callers, the real one and the fake alike."""
