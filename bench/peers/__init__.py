"""Measure, side by side, the alternatives of users."""
