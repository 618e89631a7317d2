"""The refused operation is found by trying shorter plans."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from sgagent.core.errors import KernelRefusedError
from sgagent.dataplane.table import find_refused, refuse_old_kernel
from sgagent.nft.ruleset import Chain, KeyType
from sgagent.nft.transactions import AddChain, AddElements, Flush, Operation
from tests.contract import tables

CHAINS = tuple(AddChain(Chain(name=f"chain{number}")) for number in range(9))


@pytest.mark.parametrize("place", range(9))
def test_the_first_refused_operation_is_named(place: int) -> None:
    """Wherever it stands, and although those behind it are not tried alone."""

    def accepts(operations: Sequence[Operation]) -> bool:
        return CHAINS[place] not in operations

    assert find_refused(CHAINS, accepts) == f"chain chain{place}"


def test_of_many_elements_the_refused_one_is_named() -> None:
    """A thousand elements travel together, and one is to blame."""
    elements = tuple(tables.member(number, "a") for number in range(1000))
    plan = (Flush("chain", "a"), AddElements("m", (KeyType.IPV4_ADDR,), elements))

    def accepts(operations: Sequence[Operation]) -> bool:
        last = operations[-1] if operations else None
        return not isinstance(last, AddElements) or elements[517] not in last.elements

    assert find_refused(plan, accepts) == "element 0.0.2.5 of map m"


def test_nothing_is_named_where_all_is_accepted_now() -> None:
    """The kernel's state may have changed since it refused."""
    assert find_refused(CHAINS, lambda _: True) is None


@pytest.mark.parametrize("refusals", (1, 2, 3))
def test_a_table_that_changes_while_it_is_looked_at_is_no_fault(refusals: int) -> None:
    """As others change it, a part of what was refused may be accepted, and then the whole."""
    left = [None] * refusals
    named = find_refused(CHAINS, lambda _: not left or bool(left.pop()))
    assert named is None or named in {f"chain {chain.chain.name}" for chain in CHAINS}
    assert refusals > 1 or named is None


@pytest.mark.parametrize("release", ("4.19.0-27-amd64", "5.9.16", "3.10.0-1160.el7.x86_64"))
def test_a_kernel_that_is_too_old_is_refused(release: str) -> None:
    """The message names the kernel that runs and the oldest that will do."""
    with pytest.raises(
        KernelRefusedError, match=rf"{re.escape(release)},: sgagent needs Linux 5\.10 or later"
    ):
        refuse_old_kernel(release)


@pytest.mark.parametrize(
    "release", ("5.10.0-32-cloud-amd64", "6.1.176", "7.2.13+deb14-amd64", "6.18", "strange")
)
def test_other_kernels_are_taken(release: str) -> None:
    """From 5.10 on, and where the release says nothing, the kernel itself is asked."""
    refuse_old_kernel(release)
