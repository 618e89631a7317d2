"""The data plane: the kernel's table as values, cached by generation.

A table keeper does what needs privilege, in this process or in the applier. The table may contain anything
that another process put there, so its dump is decoded here, without privilege.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgagent.core.errors import ApplierLostError, KernelRefusedError, NotPermittedError
from sgagent.dataplane import applier_protocol
from sgagent.dataplane.applier_protocol import LARGE_BYTES, LONGEST_ANSWER, MalformedMessageError, Reply, Verb
from sgagent.dataplane.applier_sessions import ApplierSessions
from sgagent.dataplane.counter_messages import CounterReading
from sgagent.dataplane.generation import RulesetNumber
from sgagent.dataplane.libnftables import DONE
from sgagent.dataplane.privileges import give_back
from sgagent.dataplane.table import Applied, PrivilegedTable, TableKeeper, TableListing
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkTest
from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.ruleset import FAMILY, TABLE, Ruleset
from sgagent.nft.transactions import RESET_WATCH, AddResetWatch, Delete, DestroyTable, Plan
from sgagent.ports import CounterValue, Observed


@dataclass(frozen=True, slots=True)
class _Seen:
    """The table that was observed at a generation."""

    generation: int
    observed: Observed


class TableDataplane:
    """The data plane over a keeper of the table.

    What was observed is remembered with the keeper's number for that state of the table. While the number
    stays, and after a change of our own with no other in between, nothing is listed again.
    """

    def __init__(self, table: TableKeeper) -> None:
        """Take the port to the kernel; it is closed with this."""
        self._table = table
        self._counters = CounterReading()
        self._seen: _Seen | None = None
        self._taken_up: int | None = None
        """The generation at which a table was taken up that was not listed yet."""

        self._after_removal: _Seen | None = None
        """The table after the removal that is still to come, and the generation before it."""

    @property
    def is_known(self) -> bool:
        """Return whether the table is known: no call since it was observed found a change by others."""
        return self._seen is not None

    def observe(self) -> Observed:
        """Return the table as it is in the kernel; take it up if an earlier owner left it.

        Raises:
            NotPermittedError: CAP_NET_ADMIN is lacking.
        """
        if self._seen and self._seen.generation == self._table.read_generation():
            return self._seen.observed
        listing = self._table.list_table()
        observed = Observed(ruleset=None)
        if listing.dump is not None:
            ruleset, foreign = decode_ruleset(listing.dump)
            observed = Observed(ruleset=ruleset, foreign=foreign)
        self._seen = None if listing.generation is None else _Seen(listing.generation, observed)
        return observed

    def ruleset_number(self) -> RulesetNumber | None:
        """Return the number of the ruleset, if the table is known to be as it was observed last."""
        number, seen = self._table.ruleset_number(), self._seen
        is_known = seen is not None and seen.generation == self._table.read_generation()
        return number if is_known else None

    def take_up(self, number: RulesetNumber) -> bool:
        """Take up a table that an earlier owner left, unlisted, if the ruleset still has a number.

        Returns:
            Whether it was; the next :meth:`recognize` counts then.
        """
        self._taken_up = self._table.take_up(number)
        return self._taken_up is not None

    def recognize(self, ruleset: Ruleset) -> None:
        """Take a ruleset for the table that was taken up; nothing where that may have changed meanwhile."""
        taken_up, self._taken_up = self._taken_up, None
        if taken_up is not None and taken_up == self._table.read_generation():
            self._seen = _Seen(taken_up, Observed(ruleset=ruleset))

    def share(self, ruleset: Ruleset) -> None:
        """Have :meth:`observe` return this value if the table equals it, so that memory holds it once."""
        if self.observe().ruleset == ruleset and self._seen is not None:
            self._seen = replace(self._seen, observed=replace(self._seen.observed, ruleset=ruleset))

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table, whether or not there is anything to change.

        Raises:
            NotPermittedError: one does; names it.
        """
        self._table.refuse_another_owner()

    def apply(self, plan: Plan) -> None:
        """Carry out a plan but for its removal: first the fill, then the flip.

        Raises:
            KernelRefusedError: no verdict was changed; names the object that was refused and why.
            NotPermittedError: CAP_NET_ADMIN is lacking, or another process owns the table.
        """
        if not plan:
            return
        seen, self._seen = self._seen, None
        known = seen.generation if seen is not None and not seen.observed.foreign else None
        filled = self._carry_out(Plan(fill=plan.fill))
        known = _followed(known, filled)
        try:
            flipped = self._carry_out(Plan(plan.flip))
        except (KernelRefusedError, NotPermittedError):
            if filled is not None and (known is not None or seen is None):
                self._take_back(plan, filled)
            raise
        known = _followed(known, flipped)
        self._after_removal = None
        is_certain = plan.after is not None and seen is not None and plan.before is seen.observed.ruleset
        if known is None or not is_certain:
            return
        settled = _Seen(known, Observed(ruleset=plan.after))
        if plan.removal:
            self._after_removal = settled
        else:
            self._seen = settled

    def remove(self, plan: Plan) -> None:
        """Carry out the removal of an applied plan: delete the objects that no packet reaches any more.

        Raises:
            KernelRefusedError: it is all still there; the next plan removes it.
            NotPermittedError: as :meth:`apply`.
        """
        expected, self._after_removal = self._after_removal, None
        known = _followed(expected.generation if expected else None, self._carry_out(Plan(plan.removal)))
        if expected is not None and known is not None:
            self._seen = _Seen(known, expected.observed)

    def _carry_out(self, plan: Plan) -> Applied | None:
        """Carry out one transaction; None where there is nothing to do."""
        return self._table.apply(plan) if plan else None

    def _take_back(self, plan: Plan, filled: Applied) -> None:
        """Remove the objects that the fill of a plan made, as its flip was refused.

        Not where another process has changed the table since: undoing the fill would undo its change as well.
        What the fill made does no harm then, as no packet reaches it, and the next plan removes it.
        """
        with contextlib.suppress(KernelRefusedError, NotPermittedError):
            if self._table.read_generation() != filled.after:
                return
            undo = Plan((DestroyTable(),))
            if plan.before is not None:
                observed = self.observe()
                undo = make_plan(plan.before, observed.ruleset, observed.foreign)
            self._carry_out(Plan(undo.operations))
        self._seen = None

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group of the kernel's packet log, and return whether the kernel can do that.

        It says so once, before it reads any document: which group is meant can't be changed afterwards.
        """
        return self._table.allow_log(group)

    def can_ask_for_groups(self) -> bool:
        """Return whether the kernel has rules that ask for the control group of a socket (§13.3)."""
        return self._table.can_ask_for_groups()

    def read_counters(self) -> Mapping[str, CounterValue]:
        """Return every named counter of the table; empty where there is no table."""
        return self._counters.read(self._table.list_counters())

    def watch_resets(self) -> None:
        """Have the counters show from now on whether another process resets them.

        Raises:
            KernelRefusedError: there is no table.
            NotPermittedError: CAP_NET_ADMIN is lacking, or another process owns the table.
        """
        if self.observe().ruleset is None:
            raise KernelRefusedError("there is none", f"table {FAMILY} {TABLE}")
        anew = Plan((AddResetWatch(), Delete("counter", RESET_WATCH), AddResetWatch()))
        applied, seen = self._carry_out(anew), self._seen
        known = _followed(seen.generation, applied) if seen else None
        self._seen = _Seen(known, seen.observed) if seen and known is not None else None

    def clear_marks(self, mask: int, tests: Sequence[MarkTest] = ()) -> int:
        """Clear bits in the mark of every session, or of those whose mark meets one of the tests."""
        return self._table.clear_marks(mask, tests)

    def close(self) -> None:
        """Release the table unchanged; the rules stay in force."""
        self._table.close()


def _followed(known: int | None, applied: Applied | None) -> int | None:
    """Return the generation at which the table is known after a transaction.

    Args:
        known: the generation at which it was known before; None where it was not.
        applied: the transaction; None where there was none.

    Returns:
        None where another process changed something meanwhile.
    """
    if known is None or applied is None:
        return known
    return applied.after if applied.before == known else None


class LibnftablesDataplane(TableDataplane):
    """The data plane within this process, of the network namespace and for the thread that makes it."""

    def __init__(self, *, owned: bool) -> None:
        """Open the data plane; changes nothing.

        Args:
            owned: whether to own the table where the kernel can do that: others can't change it then, and it
                stays when this process ends. A table that an earlier owner left is taken up.

        Raises:
            UsageError: libnftables is not installed.
        """
        super().__init__(PrivilegedTable(owned=owned))


LONGEST_CALL_SECONDS = 300.0
"""For the applier to send or take anything. The first apply of the largest policies takes a good minute."""


_RULESET_SECONDS = 60.0
"""For each part of the tables of others."""


class ApplierTable:
    """The kernel's table behind the boundary; may be used from any thread, one at a time.

    Every method raises :class:`ApplierLostError` where the applier does not answer any more; after the first
    time, it is never asked again.
    """

    def __init__(self, channel: socket.socket, *, mask: int, longest_call_seconds: float) -> None:
        """Begin.

        Args:
            channel: to an applier that nobody has spoken to.
            mask: the bits of session marks that are ours.
            longest_call_seconds: how long the applier may say nothing.

        Raises:
            UsageError: libnftables is not installed.
        """
        self._channel = channel
        self._channel.settimeout(longest_call_seconds)
        self._lock = threading.RLock()
        self._loss: str | None = None
        self.call(Verb.BEGIN, mask)

    def read_generation(self) -> int:
        """Return a number that changes whenever the table may have changed.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
        """
        (generation,) = self.call(Verb.READ_GENERATION)
        return int(generation)

    def list_table(self) -> TableListing:
        """Return the table as it is in the kernel; it is taken up if an earlier owner left it.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            KernelRefusedError: it can't be listed.
        """
        return applier_protocol.decode_listing(self._ask(Verb.LIST_TABLE))

    def ruleset_number(self) -> RulesetNumber | None:
        """Return the number of the ruleset; None if another process may have changed the table."""
        number: RulesetNumber | None
        (number,) = self.call(Verb.READ_NUMBER)
        return number

    def take_up(self, number: RulesetNumber) -> int | None:
        """Take the table up without listing it, if the ruleset still has a number; return its own then."""
        (taken,) = self.call(Verb.TAKE_UP, number)
        return None if taken is None else int(taken)

    def list_counters(self) -> bytes:
        """Return the table's named counters, unread, as :class:`PrivilegedTable` does.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            KernelRefusedError: they can't be listed.
        """
        return self._ask(Verb.LIST_COUNTERS)

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan, which is a fill or has none, in one transaction: all of it or nothing.

        Raises:
            KernelRefusedError: nothing was changed; names the object that was refused and why.
            NotPermittedError: the applier lacks CAP_NET_ADMIN, or another process owns the table.
        """
        request = applier_protocol.encode(bool(plan.fill), *plan.operations)
        applied: Applied
        (applied,) = applier_protocol.decode(self._ask(Verb.APPLY, request))
        if len(request) >= LARGE_BYTES:
            del request
            give_back()
        return applied

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group of the kernel's packet log, and return whether the kernel can do that.

        Which group is said once, and can't be changed.
        """
        (is_possible,) = self.call(Verb.ALLOW_LOG, group)
        return bool(is_possible)

    def can_ask_for_groups(self) -> bool:
        """Return whether the kernel has rules that ask for the control group of a socket."""
        (is_possible,) = self.call(Verb.CAN_ASK_FOR_GROUPS)
        return bool(is_possible)

    def open_log(self) -> socket.socket:
        """Listen to the group that plans may log to, and return the socket to read.

        Raises:
            OSError: another program listens to it; the kernel has no such log.
        """
        return self._ask_for_socket(Verb.OPEN_LOG)

    def open_listing(self) -> socket.socket:
        """Have the table listed by a process of its own, and return the socket to read that from.

        It is what :func:`sgagent.dataplane.libnftables.result_of` returns. One opened before ends.

        Raises:
            OSError: no process could be made.
        """
        return self._ask_for_socket(Verb.OPEN_LISTING)

    def read_ruleset(self) -> bytes:
        """Return the kernel's messages about the tables of others, as ``table_dump.read_ruleset`` does.

        Another process reads them. Of two calls at once the first fails.

        Raises:
            OSError: no process could be made, or it took too long.
            KernelRefusedError: the kernel refused.
        """
        with self._ask_for_socket(Verb.OPEN_RULESET) as reading:
            reading.settimeout(_RULESET_SECONDS)
            with reading.makefile("rb") as answer:
                text = answer.read()
        if text[:1] != DONE:
            raise KernelRefusedError(text[1:].decode() or "no answer", "the tables of others")
        return text[1:]

    def clear_marks(self, mask: int, tests: Sequence[MarkTest]) -> int:
        """Clear bits in the mark of every session, or of those whose mark meets one of the tests.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            KernelRefusedError: a session's mark could not be changed.
        """
        (count,) = self.call(Verb.CLEAR_MARKS, mask, *tests)
        return int(count)

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table, whether or not there is anything to change.

        Raises:
            NotPermittedError: one does; names it.
        """
        self._ask(Verb.REFUSE_ANOTHER_OWNER)

    def close(self) -> None:
        """Let the applier go; the rules stay in force."""
        self._channel.close()

    def call(self, verb: Verb, *values: object) -> tuple[Any, ...]:
        """Send a request that has values, and return those of the answer.

        Raises:
            SgagentError, OSError: what the applier refused.
        """
        return applier_protocol.decode(self._ask(verb, applier_protocol.encode(*values)))

    def _ask(self, verb: Verb, content: bytes = b"") -> bytes:
        """Send a request, and return the content of the answer to it."""
        with self._lock, self._no_failure("the applier can't be spoken to"):
            applier_protocol.send(self._channel, verb, content)
            received = applier_protocol.receive(self._channel, LONGEST_ANSWER)
            if received is None:
                raise self._lost("the applier has ended")
        kind, answer = received
        if kind == Reply.REFUSED:
            raise applier_protocol.decode_refusal(answer)
        return answer

    def _ask_for_socket(self, verb: Verb) -> socket.socket:
        with self._lock:
            self._ask(verb)
            with self._no_failure("the applier hands nothing over"):
                return applier_protocol.receive_socket(self._channel)

    @contextlib.contextmanager
    def _no_failure(self, complaint: str) -> Iterator[None]:
        """Give the applier up after a failure, since its next answer may be of another request."""
        if self._loss is not None:
            raise ApplierLostError(self._loss)
        try:
            yield
        except TimeoutError as error:
            raise self._lost("the applier does not answer") from error
        except (OSError, MalformedMessageError) as error:
            raise self._lost(f"{complaint}: {error}") from error

    def _lost(self, reason: str) -> ApplierLostError:
        self._loss = reason
        return ApplierLostError(reason)


class ApplierDataplane(TableDataplane):
    """The data plane behind the boundary, with all other work that needs privilege."""

    def __init__(
        self, channel: socket.socket, *, mask: int, longest_call_seconds: float = LONGEST_CALL_SECONDS
    ) -> None:
        """Begin, as :class:`ApplierTable` does.

        Raises:
            UsageError: libnftables is not installed.
        """
        table = ApplierTable(channel, mask=mask, longest_call_seconds=longest_call_seconds)
        super().__init__(table)
        self.sessions = ApplierSessions(table.call)
        self.open_log = table.open_log
        self.open_listing = table.open_listing
        self.read_ruleset = table.read_ruleset
