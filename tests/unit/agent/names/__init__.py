"""Tests of names that the DNS resolves."""
