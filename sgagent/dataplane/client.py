"""The client of the applier."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

from sgagent.core.errors import ApplierLostError
from sgagent.core.evaluate import Packet
from sgagent.dataplane import applier_protocol
from sgagent.dataplane.applier_protocol import LONGEST_ANSWER, MalformedMessageError, Reply, Verb
from sgagent.dataplane.dataplane import TableDataplane
from sgagent.dataplane.live_sessions import Ending, TcpSession, TrackedSession
from sgagent.dataplane.privsep import LARGE_BYTES, give_back
from sgagent.dataplane.table import Applied, TableListing
from sgagent.nft.marks import MarkTest
from sgagent.nft.transactions import Plan

LONGEST_CALL_SECONDS = 300.0
"""For the applier to send or take anything. The first apply of the largest policies takes a good minute."""


class ApplierTable:
    """The kernel's table behind the boundary; may be used from any thread, one at a time.

    Every method raises :class:`ApplierLostError` where the applier does not answer any more; after the first
    time, it is never asked again.
    """

    def __init__(
        self, channel: socket.socket, *, mask: int, longest_call_seconds: float = LONGEST_CALL_SECONDS
    ) -> None:
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
        self._lock = threading.Lock()
        self._loss: str | None = None
        self._is_owner = False
        self._ask(Verb.BEGIN, applier_protocol.encode(mask))

    @property
    def is_owner(self) -> bool:
        """Return whether the table is the applier's alone to change."""
        return self._is_owner

    def read_generation(self) -> int:
        """Return a number that changes whenever the table may have changed.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
        """
        (generation,) = applier_protocol.decode(self._ask(Verb.READ_GENERATION))
        return int(generation)

    def list_table(self) -> TableListing:
        """Return the table as it is in the kernel; it is taken up if an earlier owner left it.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            KernelRefusedError: it can't be listed.
        """
        listing, self._is_owner = applier_protocol.decode_listing(self._ask(Verb.LIST_TABLE))
        return listing

    def list_counters(self) -> bytes:
        """Return the table's named counters, unread, as :class:`sgagent.dataplane.table.KernelTable` does.

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
        applied, self._is_owner = applier_protocol.decode(self._ask(Verb.APPLY, request))
        if len(request) >= LARGE_BYTES:
            del request
            give_back()
        return applied

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group of the kernel's packet log, and return whether the kernel can do that.

        Which group is said once, and can't be changed.
        """
        (is_possible,) = applier_protocol.decode(self._ask(Verb.ALLOW_LOG, applier_protocol.encode(group)))
        return bool(is_possible)

    def open_log(self) -> socket.socket:
        """Listen to the group that plans may log to, and return the socket to read.

        Raises:
            OSError: another program listens to it; the kernel has no such log.
        """
        return self._ask_for_socket(Verb.OPEN_LOG)

    def open_listing(self) -> socket.socket:
        """Have the table listed by a process of its own, and return the socket to read that from.

        It begins with ``LISTED`` of :mod:`sgagent.dataplane.table`, else with ``NOT_LISTED`` and the reason.
        One that was opened before ends.

        Raises:
            OSError: no process could be made.
        """
        return self._ask_for_socket(Verb.OPEN_LISTING)

    def clear_marks(self, mask: int, tests: Sequence[MarkTest]) -> int:
        """Clear bits in the mark of every session, or of those whose mark meets one of the tests.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            KernelRefusedError: a session's mark could not be changed.
        """
        (count,) = applier_protocol.decode(self._ask(Verb.CLEAR_MARKS, applier_protocol.encode(mask, *tests)))
        return int(count)

    def refuse_another_owner(self) -> None:
        """Make sure that no other process owns the table, whether or not there is anything to change.

        Raises:
            NotPermittedError: one does; names it.
        """
        self._ask(Verb.REFUSE_ANOTHER_OWNER)

    def find_session(self, packet: Packet) -> TrackedSession | None:
        """Return the session that a packet belongs to, as ``live_sessions.find_session`` does.

        Raises:
            OSError: the kernel can't be asked.
        """
        if packet.source_port is None or packet.destination_port is None:
            return None
        ends = packet.source, packet.destination, packet.source_port, packet.destination_port
        request = applier_protocol.encode(packet.direction, packet.family, packet.protocol, *ends)
        session: TrackedSession | None
        (session,) = applier_protocol.decode(self._ask(Verb.FIND_SESSION, request))
        return session

    def destroy(self, session: TcpSession) -> Ending:
        """End a session at once, as :func:`sgagent.dataplane.live_sessions.destroy`.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            OSError: the kernel refused for another reason.
        """
        request = applier_protocol.encode(session.socket_family, session.identity.hex())
        ending: Ending
        (ending,) = applier_protocol.decode(self._ask(Verb.END_SESSION, request))
        return ending

    def close(self) -> None:
        """Let the applier go; the rules stay in force."""
        self._channel.close()

    def _ask(self, verb: Verb, content: bytes = b"") -> bytes:
        with self._lock:
            kind, answer = self._exchange(verb, content)
        if kind == Reply.REFUSED:
            raise applier_protocol.decode_refusal(answer)
        return answer

    def _ask_for_socket(self, verb: Verb) -> socket.socket:
        with self._lock:
            kind, answer = self._exchange(verb, b"")
            if kind == Reply.DONE:
                return self._take_over()
        raise applier_protocol.decode_refusal(answer)

    def _exchange(self, verb: Verb, content: bytes) -> tuple[int, bytes]:
        """Send a request and return the answer to it; after a failure, nobody knows what is answered."""
        if self._loss is not None:
            raise ApplierLostError(self._loss)
        try:
            applier_protocol.send(self._channel, verb, content)
            received = applier_protocol.receive(self._channel, LONGEST_ANSWER)
        except TimeoutError as error:
            raise self._lost("the applier does not answer") from error
        except (OSError, MalformedMessageError) as error:
            raise self._lost(f"the applier can't be spoken to: {error}") from error
        if received is None:
            raise self._lost("the applier has ended")
        return received

    def _take_over(self) -> socket.socket:
        try:
            return applier_protocol.take_over(self._channel)
        except (OSError, MalformedMessageError) as error:
            raise self._lost(f"the applier hands nothing over: {error}") from error

    def _lost(self, reason: str) -> ApplierLostError:
        self._loss = reason
        return ApplierLostError(reason)


class ApplierDataplane(TableDataplane):
    """The data plane behind the boundary, and what else needs privilege."""

    def __init__(
        self, channel: socket.socket, *, mask: int, longest_call_seconds: float = LONGEST_CALL_SECONDS
    ) -> None:
        """Begin, as :class:`ApplierTable` does.

        Raises:
            UsageError: libnftables is not installed.
        """
        table = ApplierTable(channel, mask=mask, longest_call_seconds=longest_call_seconds)
        super().__init__(table)
        self.find_session = table.find_session
        self.destroy = table.destroy
        self.open_log = table.open_log
        self.open_listing = table.open_listing
