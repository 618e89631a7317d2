"""The policy model: security groups, their resolution for a host, and the verdict for a packet.

Functions here are pure. No module opens a file or a socket, reads a clock, starts a process or writes a log;
an import contract checks that.
"""
