"""Prove what needs no privilege: modules, properties over many, rulesets kept beside their packets."""
