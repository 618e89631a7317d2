"""Prove what needs no privilege: single modules, properties over many, and rulesets kept beside their packets."""
