"""Tests of one package, a fact each."""
