"""Tests of sgagent.policy_test, without privilege."""
