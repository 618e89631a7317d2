"""Tests of the flow log."""
