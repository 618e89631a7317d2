"""Find addresses that two network interfaces have, where only one can (§8.1)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from sgagent.core.errors import Problem, Severity
from sgagent.core.model import CidrBlock, Family, NetworkInterface

MOST_PER_ADDRESS = 3
"""Other interfaces that are named for one address; where thousands share it, all pairs are too many."""


def overlap_errors(interfaces: Sequence[NetworkInterface]) -> Iterator[Problem]:
    """Yield an error for each pair of interfaces that share addresses, in their order.

    Two VPCs may use the same addresses. A VPC that is not known may be any.
    """
    pairs: dict[tuple[int, int], tuple[CidrBlock, CidrBlock]] = {}
    for family in Family:
        for one, other in _overlapping(interfaces, family):
            (_, earlier, earlier_block), (_, later, later_block) = sorted((one, other), key=_place)
            pairs.setdefault((later, earlier), (later_block, earlier_block))
    for (later, earlier), (block, other_block) in sorted(pairs.items()):
        name, owner = interfaces[later].network_interface_id, interfaces[earlier]
        within = "" if block == other_block else f" in {other_block}"
        yield Problem(
            severity=Severity.ERROR,
            code="duplicate_address",
            origin=interfaces[later].origin,
            value=str(block),
            message=f"{name} has an address{within} that {owner.network_interface_id} has too"
            f" ({owner.origin})",
            remedy="leave it to one of them, or give both their vpc_id if they are in different VPCs",
        )


_Held = tuple[int, int, CidrBlock]
"""A block and who has it: the block's last address, the place of the interface, the block."""


def _place(held: _Held) -> int:
    return held[1]


def _overlapping(interfaces: Sequence[NetworkInterface], family: Family) -> Iterator[tuple[_Held, _Held]]:
    """Yield each block of a family with some of those of other interfaces that hold its first address."""
    blocks = sorted(
        (block.first, place, block)
        for place, interface in enumerate(interfaces)
        for block in interface.addresses
        if block.family is family
    )
    holding: dict[str | None, list[_Held]] = {None: []}
    holding_anywhere: list[_Held] = []
    for first, place, block in blocks:
        held, vpc_id = (block.last, place, block), interfaces[place].vpc_id
        own = holding.setdefault(vpc_id, [])
        for heap in (own, holding[None]) if vpc_id else (holding_anywhere,):
            while heap and heap[0][0] < first:
                heapq.heappop(heap)
            others = (other for other in heap if _place(other) != place)
            yield from ((held, other) for other in islice(others, MOST_PER_ADDRESS))
        heapq.heappush(own, held)
        heapq.heappush(holding_anywhere, held)
