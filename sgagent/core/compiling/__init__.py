"""Compile a policy into a table in which every packet costs a fixed number of look-ups."""
