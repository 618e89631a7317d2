"""Measure, side by side, what users would pick instead."""
