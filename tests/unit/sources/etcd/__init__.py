"""Tests of sgagent.sources.etcd, without privilege."""
