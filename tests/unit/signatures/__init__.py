"""Tests of signed definitions."""
