"""Tests of sgagent.agent, without privilege."""
