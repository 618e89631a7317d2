"""Tests of sgagent.host, without privilege."""
