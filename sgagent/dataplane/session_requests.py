"""The requests that concern sessions, as the applier does them."""

from __future__ import annotations

from typing import Any

from sgagent.dataplane import request_validation as validation
from sgagent.dataplane.applier_protocol import MalformedMessageError, Verb, encode
from sgagent.dataplane.conntrack import find_sessions
from sgagent.dataplane.conntrack_entries import EntryListing, Piece, end_entries, restore_entry
from sgagent.dataplane.flow_tables import list_flow_tables
from sgagent.dataplane.live_sessions import destroy_socket
from sgagent.nft.marks import MarkTest


class SessionRequests:
    """Carry out requests about sessions; holds the listing of entries that was begun."""

    def __init__(self) -> None:
        """List nothing yet."""
        self._listing: EntryListing | None = None

    def close(self) -> None:
        """Give up the listing that was begun, if any."""
        if self._listing is not None:
            self._listing.close()
            self._listing = None

    def answer(self, verb: Verb, values: tuple[Any, ...], mask: int) -> bytes:
        """Return the answer to a request.

        Args:
            verb: what is asked for.
            values: with what, as the agent sent it.
            mask: the agent's bits of marks.

        Raises:
            MalformedMessageError: the values are not those of such a request.
            OSError, SgagentError: the kernel refused.
        """
        match verb:
            case Verb.FIND_SESSIONS:
                return encode(*find_sessions(validation.check_packets(values)))
            case Verb.END_SESSION:
                return encode(destroy_socket(*validation.check_socket(values)))
            case Verb.BEGIN_ENTRIES:
                self._begin(*validation.check_listing(values))
                return b""
            case Verb.NEXT_ENTRIES:
                return encode(*self._next_piece())
            case Verb.END_ENTRIES:
                return encode(end_entries(validation.check_entries(values), mask))
            case Verb.RESTORE_ENTRY:
                return encode(restore_entry(*validation.check_restored(values)))
            case Verb.LIST_FLOW_TABLES:
                return encode(*list_flow_tables())
            case _:
                raise MalformedMessageError("no request about sessions")

    def _begin(self, all_protocols: bool, tests: tuple[MarkTest, ...]) -> None:  # noqa: FBT001 - as it was sent
        self.close()
        self._listing = EntryListing(tests, all_protocols=all_protocols)

    def _next_piece(self) -> Piece:
        if self._listing is None:
            raise MalformedMessageError("no entries are being listed")
        piece = self._listing.next_piece()
        if piece.is_last:
            self._listing = None
        return piece
