"""Find out which operation of a plan the kernel refuses.

Its answers to a transaction carry no place that survives the way through libnftables. So the plan is tried
again, as checks that change nothing, cut to ever better chosen lengths, until the first operation is found
with which it is refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from sgagent.core.kernel.describe import subject
from sgagent.core.kernel.plan import AddElements, DeleteElements, Operation

Accepts = Callable[[Sequence[Operation]], bool]


def find_refused(operations: Sequence[Operation], accepts: Accepts) -> str | None:
    """Return what the first refused operation is about; None where all are accepted after all.

    Args:
        operations: what was refused as a whole.
        accepts: tells whether the kernel would take these operations.
    """
    place = _first_refused(len(operations), lambda count: accepts(operations[:count]))
    if place is None:
        return None
    refused = operations[place]
    if isinstance(refused, (AddElements, DeleteElements)):
        refused = _narrowed(refused, lambda one: accepts([*operations[:place], one]))
    return subject(refused)


def _first_refused(count: int, accepts: Callable[[int], bool]) -> int | None:
    """Return the place of the first one without which the ones before are accepted."""
    if accepts(count):
        return None
    return bisect_left(range(1, count + 1), x=True, key=lambda length: not accepts(length))


def _narrowed(
    refused: AddElements | DeleteElements, accepts: Callable[[Operation], bool]
) -> AddElements | DeleteElements:
    """Return the operation with its first refused element alone."""
    place = _first_refused(
        len(refused.elements), lambda count: accepts(replace(refused, elements=refused.elements[:count]))
    )
    return refused if place is None else replace(refused, elements=(refused.elements[place],))
