"""Bring cloud security groups to any Linux host."""

__version__ = "0.1.0"
