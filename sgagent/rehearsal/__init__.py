"""Rehearse a policy before it goes live: the kernel itself judges real packets in a network of their own.

The network is a private namespace that is gone with the process that is in it. The host's own links and rules
are neither read nor touched.
"""

from sgagent.rehearsal.rehearsing import rehearse

__all__ = ["rehearse"]
