"""Tests of sgagent.packets, without privilege."""
