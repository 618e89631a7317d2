"""Prove that a table enforces the policy, for every packet, or find a packet for which it does not.

The package reads a table as the kernel runs it, and knows nothing of how it was compiled. ``docs/verify.md``
has the argument. What other packages use:

- :func:`sgagent.verify.programs.read_table`,
  :func:`sgagent.verify.verified_table.table_of`: a table to verify;
- :func:`sgagent.verify.interpreter.run`: what a table does with one packet;
- :func:`sgagent.verify.expectation.expect`: what the policy says of that packet;
- :func:`sgagent.verify.proof.prove`: the comparison of both for all packets;
- :mod:`sgagent.verify.report`: what came of that, in words and as JSON.
"""

import enum


class Outcome(enum.Enum):
    """The result of a comparison."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"
    """Something in the table is not understood."""
