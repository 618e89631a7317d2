"""Tests of sgagent.sources.aliyun."""
