"""Serve metrics, probes and the status page over HTTP."""
