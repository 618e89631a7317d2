"""Tell what links and addresses this machine has, and when that changes."""
