"""``table inet sgagent`` of one network namespace, through libnftables and netlink in this process.

This half of the data plane needs CAP_NET_ADMIN, keeps only how the table was declared, and decodes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sgagent.core.conditions import NO_GROUP_MATCH
from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError
from sgagent.dataplane import generation, libnftables
from sgagent.dataplane.associations import follow_associations
from sgagent.dataplane.conntrack import clear_marks
from sgagent.dataplane.generation import RulesetGeneration, RulesetNumber
from sgagent.dataplane.group_rules import append_rules, refusal
from sgagent.dataplane.libnftables import NOT_PERMITTED, Context, RefusedError
from sgagent.dataplane.privileges import fork
from sgagent.dataplane.table_dump import TableDump, dump_buckets, dump_table
from sgagent.netlink import refuse_without_netfilter
from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.marks import MarkTest
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.nft.text import subject, write_additions
from sgagent.nft.transactions import Operation, Plan, encode_plan

Accepts = Callable[[Sequence[Operation]], bool]


def find_refused(operations: Sequence[Operation], accepts: Accepts) -> str | None:
    """Return the subject of the first refused operation; None where all are accepted after all.

    Args:
        operations: what was refused as a whole.
        accepts: returns whether the kernel accepts these operations, in a dry run.
    """
    place = _first_refused(len(operations), lambda count: accepts(operations[:count]))
    if place is None:
        return None
    refused = operations[place]
    if isinstance(refused, (ops.AddElements, ops.DeleteElements)):
        refused = _narrowed(refused, lambda one: accepts([*operations[:place], one]))
    return subject(refused)


def _first_refused(count: int, accepts: Callable[[int], bool]) -> int | None:
    """Return the place of the first one without which the ones before are accepted.

    None where all are accepted, be it that another process changed the table while this looked.
    """
    if accepts(count):
        return None
    place = bisect_left(range(1, count + 1), x=True, key=lambda length: not accepts(length))
    return place if place < count else None


def _narrowed(
    refused: ops.AddElements | ops.DeleteElements, accepts: Callable[[Operation], bool]
) -> ops.AddElements | ops.DeleteElements:
    """Return the operation with its first refused element alone."""
    elements = refused.elements
    place = _first_refused(len(elements), lambda count: accepts(replace(refused, elements=elements[:count])))
    return refused if place is None else replace(refused, elements=(elements[place],))


_OWNED_FLAGS = (("owner", "persist"), ("persist",), ())
_ONE_SHOT_FLAGS = (("persist",), ())
"""What the table is declared with, the best first; older kernels and libraries, and a table that stands
without, take only later ones. Never ``owner`` alone: rules have to outlive the agent."""

_OF_TABLE = (ops.AddTable, ops.DestroyTable, ops.DeleteTable)

_DESTROYING: ops.Json = {"nftables": [{"destroy": {"table": {"family": FAMILY, "name": f"{TABLE}-tried"}}}]}
"""Tells by what the kernel says of it whether it is Linux 6.3 or later. No such table is made."""

_TRIED = "x/tried"
"""A chain that is never made: by it the kernel is asked what it would take."""

_ATTEMPTS = 20
"""Dumps that are tried while another process keeps changing the ruleset."""

_DYING_SECONDS, _DYING_PAUSE_SECONDS = 2.0, 0.01
"""How long the kernel may take to close the sockets of a process that was killed, on a busy host."""

_NO_PRIVILEGE = "nftables can be read and changed only with CAP_NET_ADMIN"


@dataclass(frozen=True, slots=True)
class TableListing:
    """The kernel's listing of our table."""

    generation: int | None
    """Of the ruleset that was dumped; None where another process kept changing other tables meanwhile."""

    dump: bytes | None
    """Netlink messages, for :mod:`sgagent.nft.kernel_table`; None where there is no table."""


@dataclass(frozen=True, slots=True)
class Applied:
    """When a plan was carried out, in numbers as :meth:`TableKeeper.read_generation` returns them."""

    before: int | None
    """None where another process may have changed something just before."""

    after: int


class TableKeeper(Protocol):
    """The work that needs privilege, in this process or in another."""

    def read_generation(self) -> int:
        """Return a number that changes whenever the table may have changed."""

    def list_table(self) -> TableListing:
        """Return the table as it is; take it up if an earlier owner left it."""

    def ruleset_number(self) -> RulesetNumber | None:
        """Return the number of the ruleset; None if the table may have changed since it was looked at."""

    def take_up(self, number: RulesetNumber) -> int | None:
        """Take the table up without listing it, if the ruleset still has a number; return its own then.

        None, and nothing is known of it, where anything has changed since.
        """

    def list_counters(self) -> bytes:
        """Return the table's named counters, unread, for :mod:`sgagent.dataplane.dataplane`."""

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan in one transaction."""

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group of the kernel's packet log, and return whether the kernel can do that."""

    def can_ask_for_groups(self) -> bool:
        """Return whether the kernel has rules that ask for the control group of a socket."""

    def clear_marks(self, mask: int, tests: Sequence[MarkTest]) -> int:
        """Clear bits in the marks of sessions, and return of how many."""

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table."""

    def close(self) -> None:
        """Release the table unchanged."""


OLDEST_KERNEL = (5, 10)
"""Of the kernels on which all tests pass. None of the conditions of its rules is newer than that."""

_RELEASE = re.compile(r"([0-9]+)\.([0-9]+)")


def is_old_kernel(release: str) -> bool:
    """Return whether a kernel is known to be too old.

    Args:
        release: as ``uname -r`` prints it.
    """
    number = kernel_number(release)
    return number is not None and number < OLDEST_KERNEL


def kernel_number(release: str) -> tuple[int, int] | None:
    """Return the first two numbers of a release; None where it does not begin with such."""
    found = _RELEASE.match(release)
    return (int(found[1]), int(found[2])) if found else None


def refuse_old_kernel(release: str) -> None:
    """Refuse a kernel that is known to be too old, before anything is touched.

    Args:
        release: as ``uname -r`` prints it.

    Raises:
        KernelRefusedError: it is too old.
    """
    if is_old_kernel(release):
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise KernelRefusedError(f"sgagent needs Linux {oldest} or later", f"the kernel, {release},")


class PrivilegedTable:
    """The kernel's table, in the network namespace and for the thread in which this was made."""

    def __init__(self, *, owned: bool) -> None:
        """Open the library and socket to the kernel; changes nothing.

        Args:
            owned: whether to own the table where the kernel can do that: others can't change it then, and it
                stays when this process ends. A table that an earlier owner left is taken up.

        Raises:
            UsageError: libnftables is not installed.
            KernelRefusedError: the kernel is older than what sgagent needs, or gives no socket for netfilter.
        """
        refuse_old_kernel(os.uname().release)
        self._context = Context()
        self.port = self._context.introduce() if _is_permitted() else None
        """The netlink port that makes our changes; None where it could not be found."""

        self._generation = RulesetGeneration()
        self._candidates = _OWNED_FLAGS if owned else _ONE_SHOT_FLAGS
        self._must_declare = owned
        self._flags: Sequence[str] | None = None
        """What we declared the table that stands with."""

        self._asks_for_groups: bool | None = None
        """Whether the kernel has rules for control groups; None until the first."""

        self._destroys: bool | None = None
        """Whether the kernel has a command to destroy tables; None until the first plan."""

    def read_generation(self) -> int:
        """Return the kernel's number for the state of the ruleset.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
        """
        try:
            return self._generation.read()
        except PermissionError as error:
            raise NotPermittedError(_NO_PRIVILEGE) from error

    def list_table(self) -> TableListing:
        """Return the table as it is in the kernel; take it up if an earlier owner left it.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
            KernelRefusedError: it can't be dumped.
        """
        self.read_generation()
        self._adopt()
        listing = _list_table(self._generation)
        if listing.dump is None:
            self._flags = None
        return listing

    def ruleset_number(self) -> RulesetNumber | None:
        """Return the number of the ruleset; None on kernels that number no namespaces."""
        return self._generation.number()

    def take_up(self, number: RulesetNumber) -> int | None:
        """Take the table up without listing it, if the ruleset still has a number.

        Returns:
            The generation then; None where another process has changed anything, or there is no table.
        """
        self.read_generation()
        if self._generation.number() != number or not self._generation.table_stands():
            return None
        self._adopt()
        known = number.generation if self._flags is None else generation.following(number.generation)
        return known if self.read_generation() == known else None

    def list_counters(self) -> bytes:
        """Return the kernel's dump of the table's named counters, unparsed.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
            KernelRefusedError: they can't be listed.
        """
        self.read_generation()
        try:
            return self._generation.list_counters()
        except OSError as error:
            reason = error.strerror or str(error)
            raise KernelRefusedError(reason, f"listing of counters of table {FAMILY} {TABLE}") from error

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan, which is a fill or has none, in one transaction: all of it or nothing.

        Rules that ask for control groups follow in transactions of their own. Where they are refused, the
        chains made for them stay empty; of a fill, no packet reaches these. The next plan adds the rules.

        Raises:
            KernelRefusedError: nothing else was changed; names the object that was refused and why.
            NotPermittedError: the process lacks CAP_NET_ADMIN, or another process owns the table.
        """
        flags = self._choose_flags(plan)
        operations = self._spelled(
            tuple(one for one in plan.operations if not ops.is_beyond_libnftables(one))
        )
        asking = [
            one for one in plan.operations if isinstance(one, ops.AddRule) and ops.is_beyond_libnftables(one)
        ]
        if asking and not self.can_ask_for_groups():
            raise KernelRefusedError(NO_GROUP_MATCH, subject(asking[0]))
        must_declare = self._must_declare and flags != self._flags and not (asking and not operations)
        if must_declare and not isinstance((*operations, None)[0], _OF_TABLE):
            operations = (ops.AddTable(), *operations)
        before = self.read_generation()
        try:
            additions = write_additions(operations, flags, plan.verb)
            if additions is None:
                self._context.run(encode_plan(Plan(operations), flags, plan.verb))
            elif operations:
                self._context.load(additions)
        except RefusedError as refusal:

            def accepts(some: Sequence[Operation]) -> bool:
                return self._context.accepts(encode_plan(Plan(tuple(some)), flags, plan.verb))

            raise self._explained(refusal, operations, accepts) from refusal
        last = next((one for one in reversed(operations) if isinstance(one, _OF_TABLE)), None)
        if operations:
            self._flags = flags if last is None or isinstance(last, ops.AddTable) else None
        after = generation.following(before) if operations else before
        for _ in range(self._append(asking)):
            after = generation.following(after)
        now = self.read_generation()
        return Applied(before if now == after else None, now)

    def _append(self, asking: Sequence[ops.AddRule]) -> int:
        """Append rules that libnftables can't write, and return in how many transactions."""
        if not asking:
            return 0
        try:
            with self._context.own_socket() as own:
                return append_rules(own, asking)
        except OSError as error:
            raise KernelRefusedError(error.strerror or str(error), subject(asking[0])) from error

    def can_ask_for_groups(self) -> bool:
        """Return whether the kernel has rules that ask for the control group of a socket; nothing is done.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
        """
        self.read_generation()
        if self._asks_for_groups is None:
            with contextlib.suppress(OSError), self._context.own_socket() as own:
                self._asks_for_groups = refusal(own) is None
        return bool(self._asks_for_groups)

    def forget(self) -> None:
        """Keep nothing in memory of earlier plans; costs a moment, so it is for after a large plan."""
        self._context.forget()

    def allow_log(self, group: int) -> bool:
        """Return whether the kernel takes rules that log to a group; nothing is done.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
        """
        self.read_generation()  # without the privilege the library would print, and say no
        statements = (nft.Limit(per_second=1, burst=1), nft.Log(prefix=_TRIED, group=group))
        chain = nft.Chain(name=_TRIED, rules=())
        plan = Plan((ops.AddTable(), ops.AddChain(chain), ops.AddRule(chain.name, nft.Rule(statements))))
        return any(self._context.accepts(encode_plan(plan, flags)) for flags in self._candidates)

    def clear_marks(self, mask: int, tests: Sequence[MarkTest]) -> int:
        """Clear bits in the mark of every session, or of those whose mark meets one of the tests.

        Without tests, no acceptance is left from before, so older associations are added to conntrack, too.
        """
        if not tests:
            with contextlib.suppress(OSError):  # without sctp_diag, they are known from their next heartbeat
                follow_associations()
        return clear_marks(mask, tests)

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table, whether or not there is anything to change.

        A process that was killed, or a fork of it, may own it for a moment longer, so this waits first.

        Raises:
            NotPermittedError: one does; names it.
        """
        end = time.monotonic() + _DYING_SECONDS
        while (port := self._other_owner()) is not None:
            if time.monotonic() >= end:
                raise _owned_by(port)
            time.sleep(_DYING_PAUSE_SECONDS)  # noqa: TID251 - the kernel tells nobody; the deadline bounds it

    def _other_owner(self) -> int | None:
        """Return the netlink port of another process that owns the table."""
        return None if "owner" in (self._flags or ()) else self._generation.owner()

    def close(self) -> None:
        """Release the table unchanged; the rules stay in force."""
        self._generation.close()
        del self._context

    def _adopt(self) -> None:
        """Take the table up that an earlier owner left, if there is one, before somebody changes it.

        Where another process is quicker, the next change that we want to make will say who owns it.
        """
        if not self._must_declare or self._flags is not None or not self._generation.table_stands():
            return
        declaration = Plan((ops.AddTable(),))
        flags = self._choose_flags(declaration)
        if "owner" in flags:
            with contextlib.suppress(RefusedError):
                self._context.run(encode_plan(declaration, flags))
                self._flags = flags

    def _choose_flags(self, plan: Plan) -> Sequence[str]:
        """Return the best flags that the kernel takes for the table."""
        table_operations = self._spelled(one for one in plan.operations if isinstance(one, _OF_TABLE))
        if self._flags is not None and not table_operations:
            return self._flags
        declaration = Plan((*table_operations, ops.AddTable()))
        accepted = (f for f in self._candidates if self._context.accepts(encode_plan(declaration, f)))
        return next(accepted, ())

    def _spelled(self, operations: Iterable[Operation]) -> tuple[Operation, ...]:
        """Return the operations in the form that this kernel takes."""
        if self._destroys is None:
            self._destroys = self._context.accepts(_DESTROYING)
        return tuple(operations if self._destroys else ops.without_destroy(operations))

    def _explained(
        self, refusal: RefusedError, operations: Sequence[Operation], accepts: Accepts
    ) -> SgagentError:
        """Return the refusal with all that can be found out about it."""
        if NOT_PERMITTED not in refusal.reason:
            return KernelRefusedError(refusal.reason, find_refused(operations, accepts))
        port = self._other_owner()
        return NotPermittedError(_NO_PRIVILEGE) if port is None else _owned_by(port)


def _owned_by(port: int) -> NotPermittedError:
    owner = generation.owner_of(port)
    return NotPermittedError(f"the table {FAMILY} {TABLE} is owned by {owner} (stop that first)")


def _is_permitted() -> bool:
    """Return whether this process may speak to nftables at all."""
    with RulesetGeneration() as asked:
        try:
            asked.read()
        except OSError:
            return False
    return True


def _list_table(asked: RulesetGeneration) -> TableListing:
    """Return the kernel's listing of the table.

    Raises:
        KernelRefusedError: it says nothing, has no netfilter, or another process keeps changing the table.
    """
    previous: TableDump | None = None
    try:
        for _ in range(_ATTEMPTS):
            before = asked.read()
            with contextlib.suppress(FileNotFoundError):  # a set that was there a moment ago
                dump = dump_table(asked) if asked.table_stands() else None
                is_unchanged = asked.read() == before
                if is_unchanged or (dump and previous and dump.program == previous.program):
                    whole = None if dump is None else dump.messages + dump_buckets(asked, dump)
                    return TableListing(before if is_unchanged else None, whole)
                previous = dump
    except OSError as error:
        raise KernelRefusedError(error.strerror or str(error), _DUMP) from error
    raise KernelRefusedError("another process keeps changing the ruleset", _DUMP)


_DUMP = f"dump of table {FAMILY} {TABLE}"


def list_anew() -> TableListing:
    """Return the kernel's listing of the table in this thread's network namespace; changes nothing.

    Raises:
        KernelRefusedError: it says nothing, has no netfilter, or another process keeps changing the table.
        NotPermittedError: the process lacks CAP_NET_ADMIN.
    """
    refuse_without_netfilter()
    with RulesetGeneration() as asked:
        try:
            asked.read()
        except PermissionError as error:
            raise NotPermittedError(_NO_PRIVILEGE) from error
        return _list_table(asked)


def _dump_anew() -> bytes:
    """Return a dump of the table; nothing where there is none."""
    return list_anew().dump or b""


def list_in_background(writing: socket.socket) -> int:
    """Fork a process that dumps the table into a socket and ends; return its process id, to be waited for.

    It writes a result as :func:`sgagent.dataplane.libnftables.result_of` returns it.
    """
    return fork(lambda: writing.sendall(libnftables.result_of(_dump_anew, KernelRefusedError)))
