"""Packet tests of a policy: expected packets, and their judges, the specification and the kernel.

``docs/packets.md`` describes the file format, ``docs/test.md`` the command.
"""
