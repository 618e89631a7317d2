"""Tests of sgagent.sources, without privilege."""
