"""Keep ``table inet sgagent`` of one network namespace, through libnftables in this process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.nftjson import Json, encode_plan
from sgagent.core.nftlisting import decode_ruleset
from sgagent.core.plan import AddTable, DestroyTable, Operation, Plan
from sgagent.core.ruleset import FAMILY, TABLE
from sgagent.core.transaction import carry_out
from sgagent.dataplane.conntrack import clear_marks
from sgagent.dataplane.generation import RulesetGeneration, following
from sgagent.dataplane.libnftables import NOT_PERMITTED, Context, RefusedError
from sgagent.dataplane.refusal import find_refused
from sgagent.ports import CounterValue, Observed

_OWNED_FLAGS = (("owner", "persist"), ("persist",), ())
_ONE_SHOT_FLAGS = (("persist",), ())
"""What the table is declared with, the best first; older kernels and libraries, and a table that stands
without, take only later ones. Never ``owner`` alone: rules have to outlive the agent."""

_ATTEMPTS = 5
"""Listings that are tried while somebody else keeps changing the ruleset."""

_NO_PRIVILEGE = "nftables can be read and changed only with CAP_NET_ADMIN"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What stood when the kernel's ruleset had a generation."""

    generation: int
    observed: Observed


class LibnftablesDataplane:
    """The kernel's table, in the network namespace and for the thread in which this was made.

    What was observed is remembered with the kernel's number for that state of the ruleset. While the number
    stays, and after a change of our own that moved it by exactly one, nothing is listed again.
    """

    def __init__(self, *, owned: bool) -> None:
        """Open the data plane; changes nothing.

        Args:
            owned: whether to own the table where the kernel can do that: others can't change it then, and it
                stays when this process ends. A table that an earlier owner left is taken up.

        Raises:
            UsageError: libnftables is not installed.
        """
        self._context = Context()
        self._generation = RulesetGeneration()
        self._candidates = _OWNED_FLAGS if owned else _ONE_SHOT_FLAGS
        self._must_declare = owned
        self._flags: Sequence[str] | None = None
        """What we declared the table that stands with."""

        self._seen: _Seen | None = None

    @property
    def is_owner(self) -> bool:
        """Tell whether the table is ours alone to change."""
        return "owner" in (self._flags or ())

    def observe(self) -> Observed:
        """Return the table as it stands in the kernel; take it up if an earlier owner left it.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
        """
        observed = None
        for _ in range(_ATTEMPTS):
            before = self._read_generation()
            if self._seen and self._seen.generation == before:
                return self._seen.observed
            if self._adopt():
                before = self._read_generation()
            observed = self._list()
            if self._read_generation() == before:
                self._seen = _Seen(before, observed)
                break
        return observed or self._list()

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table, whether or not there is anything to change.

        Raises:
            NotPermittedError: one does; names it.
        """
        owner = None if self.is_owner else self._generation.owner()
        if owner is not None:
            raise NotPermittedError(f"the table {FAMILY} {TABLE} is owned by {owner}")

    def apply(self, plan: Plan) -> None:
        """Carry out the plan in one transaction: all of it or nothing.

        Raises:
            KernelRefusedError: nothing was changed; names the object that was refused and why.
            NotPermittedError: the process lacks CAP_NET_ADMIN, or another process owns the table.
        """
        if not plan:
            return
        flags = self._choose_flags(plan)
        operations = plan.operations
        if self._must_declare and flags != self._flags:
            operations = _declaring_first(operations)
        try:
            self._context.run(encode_plan(Plan(operations), flags))
        except RefusedError as refusal:
            self._explain(refusal, operations, flags)
        self._flags = None if _leaves_no_table(operations) else flags
        self._remember(plan)

    def read_counters(self) -> Mapping[str, CounterValue]:
        """Return every named counter of the table; empty where there is no table."""
        self._read_generation()
        listing = _listed(self._context.list_counters) or {}
        counters = (entry["counter"] for entry in listing.get("nftables", ()) if "counter" in entry)
        return {
            counter["name"]: CounterValue(counter["packets"], counter["bytes"])
            for counter in counters
            if counter["family"] == FAMILY and counter["table"] == TABLE
        }

    def clear_marks(self, mask: int, value: int | None = None) -> int:
        """Clear bits in the mark of every session, or of those with ``mark & mask == value``."""
        return clear_marks(mask, value)

    def close(self) -> None:
        """Give the table up as it stands; the rules stay in force."""
        self._generation.close()
        del self._context

    def _read_generation(self) -> int:
        try:
            return self._generation.read()
        except OSError as error:
            if error.errno == errno.EPERM:
                raise NotPermittedError(_NO_PRIVILEGE) from error
            raise

    def _list(self) -> Observed:
        listing = _listed(self._context.list_table)
        if listing is None:
            self._flags = None
            return Observed(ruleset=None)
        ruleset, foreign = decode_ruleset(listing)
        return Observed(ruleset=ruleset, foreign=foreign)

    def _adopt(self) -> bool:
        """Take the table up that an earlier owner left, if there is one, before somebody changes it.

        Where somebody else is quicker, the next change that we want to make will say who owns it.
        """
        if not self._must_declare or self._flags is not None or not self._generation.table_stands():
            return False
        declaration = Plan((AddTable(),))
        flags = self._choose_flags(declaration)
        if "owner" not in flags:
            return False
        try:
            self._context.run(encode_plan(declaration, flags))
        except RefusedError:
            return False
        self._flags = flags
        return True

    def _choose_flags(self, plan: Plan) -> Sequence[str]:
        """Return the best flags that the kernel takes for the table."""
        table_operations = tuple(
            operation for operation in plan.operations if isinstance(operation, (AddTable, DestroyTable))
        )
        if self._flags is not None and not table_operations:
            return self._flags
        declaration = Plan((*table_operations, AddTable()))
        accepted = (f for f in self._candidates if self._context.accepts(encode_plan(declaration, f)))
        return next(accepted, ())

    def _explain(
        self, refusal: RefusedError, operations: Sequence[Operation], flags: Sequence[str]
    ) -> NoReturn:
        """Raise the refusal with all that can be found out about it."""
        if NOT_PERMITTED in refusal.reason:
            self.refuse_another_owner()
            raise NotPermittedError(_NO_PRIVILEGE) from refusal

        def accepts(some: Sequence[Operation]) -> bool:
            return self._context.accepts(encode_plan(Plan(tuple(some)), flags))

        raise KernelRefusedError(refusal.reason, find_refused(operations, accepts)) from refusal

    def _remember(self, plan: Plan) -> None:
        """Work out what stands now, if nobody but us changed anything since it was last seen."""
        seen, self._seen = self._seen, None
        if seen is None or seen.observed.foreign:
            return
        now = self._read_generation()
        if now == following(seen.generation):
            self._seen = _Seen(now, Observed(ruleset=carry_out(plan, seen.observed.ruleset)))


def _listed(list_: Callable[[], Json | None]) -> Json | None:
    """Return a listing.

    Raises:
        KernelRefusedError: there is one, and it can't be had.
    """
    try:
        return list_()
    except RefusedError as refusal:
        raise KernelRefusedError(refusal.reason, f"listing of table {FAMILY} {TABLE}") from refusal


def _declaring_first(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Return the operations with the table declared before all others that need it."""
    return operations if isinstance(operations[0], (AddTable, DestroyTable)) else (AddTable(), *operations)


def _leaves_no_table(operations: Sequence[Operation]) -> bool:
    of_table = [operation for operation in operations if isinstance(operation, (AddTable, DestroyTable))]
    return bool(of_table) and isinstance(of_table[-1], DestroyTable)
