"""The ports between the agent and the outside: source, host, data plane and clock.

Adapters implement these; the fakes of the tests implement them too and run the same contract suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sgagent.core.binding import HostFacts
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import Problem
from sgagent.core.guardrails import Guardrails
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile
from sgagent.nft.marks import MarkTest
from sgagent.signatures import Signed

if TYPE_CHECKING:
    from sgagent.nft.ruleset import Ruleset
    from sgagent.nft.transactions import Plan

Wake = Callable[[], None]
"""Say "step soon"; may be called from any thread, any number of times."""


SOURCE_AWAY = "source_away"
"""Of the warning that one of several sources can't be reached: no fault of the documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredPart:
    """The last delivery of one of several sources, or of the only one."""

    place: str = ""
    """Of the source; empty for the only one."""

    delivered_at: float | None = None
    """When it delivered something new last, in seconds since the epoch; None where nobody noted that."""

    signed: Signed | None = None
    fault: str | None = None
    """Why it can't be reached, or its newest documents are refused; what it delivered last stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A complete snapshot and the warnings of reading it."""

    snapshot: Snapshot
    problems: tuple[Problem, ...] = ()
    """Warnings only: errors of form are raised."""

    warnings: tuple[Problem, ...] = ()
    """Those of them that are about the source, and not about its documents."""

    documents: tuple[DocumentFile, ...] = ()
    """The documents as they were delivered, to be kept as the last good ones."""

    signed: Signed | None = None
    """Who vouches for it; None where nobody was asked."""

    parts: tuple[DeliveredPart, ...] = ()
    """Of several sources, what each delivered; empty for one."""

    refused: tuple[Problem, ...] = ()
    """Of several sources, why newer documents of some are refused; their older ones are in this snapshot."""

    away: str | None = None
    """Of several sources, which can't be reached and why; what they delivered last is in this snapshot."""

    @property
    def all_parts(self) -> tuple[DeliveredPart, ...]:
        """Return what each source delivered; of one source alone, only its signature is known."""
        return self.parts or (DeliveredPart(signed=self.signed),)


class Source(Protocol):
    """Where definitions come from."""

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot.

        Raises:
            DocumentError: what was delivered has errors of form (§8.1); the last good one stays.
            SourceUnavailableError: nothing could be read at all.
        """

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the source is reached over the network, as far as that is known at this moment.

        No group can block the way there (§7.4). Asked at each step, so it must not wait for anything: of a
        name, it tells the addresses that the last fetch found, also if that could not reach them.
        """

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Look now whether there is something newer, as somebody asked for that; called from any thread.

        Where a fetch hands over what the watch found, the watch looks; where a fetch looks for itself, the
        next one takes all that there is, settled or not.

        Args:
            wait_seconds: how long to wait until the watch has looked.

        Returns:
            Whether the next fetch returns what there is now, or why that is not known.
        """

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` whenever a fetch may deliver something else, until the context is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGuardrails:
    """The statements that no policy may break, as they were read (§13.4)."""

    guardrails: Guardrails
    problems: tuple[Problem, ...] = ()
    """Warnings."""

    signed: Signed | None = None
    """None where no signature is required."""


class GuardrailSource(Protocol):
    """Where guardrails come from: another place than the policy."""

    def fetch(self) -> ReadGuardrails:
        """Return the statements; the identical object while nothing has changed.

        Raises:
            DocumentError: they have errors, or no valid signature.
            SourceUnavailableError: they can't be read.
        """

    def refresh(self) -> None:
        """Make the next fetch look for itself."""

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` whenever a fetch may return something else, until the context is left."""


class Host(Protocol):
    """The machine's links."""

    def facts(self) -> HostFacts:
        """Return the present links and addresses.

        Raises:
            LinksUnreadableError: changes interrupted each listing.
            OSError: the kernel refused.
        """

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` whenever links or addresses changed, until the context is left."""


@dataclass(frozen=True, slots=True)
class CounterValue:
    """The packets and bytes of a named counter since it was made."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The table in the kernel now."""

    ruleset: Ruleset | None
    """None where there is no table ``inet sgagent``."""

    foreign: tuple[str, ...] = ()
    """Objects in our table that sgagent never makes, or that can't be read as what it makes, by kind and name
    like ``chain evil``; a plan removes them."""


class Dataplane(Protocol):
    """The kernel's table ``inet sgagent`` of one network namespace, and the sessions' marks."""

    def observe(self) -> Observed:
        """Return the table as it is in the kernel.

        Raises:
            NotPermittedError: the process lacks CAP_NET_ADMIN.
        """

    def recognize(self, ruleset: Ruleset) -> None:
        """Take a ruleset for the table that an earlier agent left, if nobody has changed anything since.

        The caller knows that this ruleset was in the kernel then. Where that is not sure, nothing is done.
        """

    def share(self, ruleset: Ruleset) -> None:
        """Return this value from now on if the table equals it, so that memory holds it once."""

    def apply(self, plan: Plan) -> None:
        """Carry out a plan but for its removal: first the fill, then the flip.

        Raises:
            KernelRefusedError: no verdict was changed; names the object that was refused and why.
            NotPermittedError: the process lacks CAP_NET_ADMIN, or another process owns the table.
        """

    def remove(self, plan: Plan) -> None:
        """Carry out the removal of an applied plan: delete the objects that no packet reaches any more.

        Counters that are about to be deleted can be read before, when nothing counts on them any more.

        Raises:
            KernelRefusedError: it is all still there; the next plan removes it.
            NotPermittedError: as :meth:`apply`.
        """

    def read_counters(self) -> Mapping[str, CounterValue]:
        """Return every named counter of the table; empty where there is no table."""

    def watch_resets(self) -> None:
        """Have a counter named :data:`sgagent.nft.transactions.RESET_WATCH` stand at one.

        Nothing but a reset of the table's counters by another process changes it: to zero.

        Raises:
            KernelRefusedError: there is no table.
            NotPermittedError: as :meth:`apply`.
        """

    def clear_marks(self, mask: int, tests: Sequence[MarkTest] = ()) -> int:
        """Clear the bits of ``mask`` in the mark of every session.

        Args:
            mask: the bits to clear; others stay.
            tests: only of sessions whose mark meets one of these; without any of all.

        Returns:
            How many sessions were changed.
        """

    def close(self) -> None:
        """Release the table unchanged; the rules stay in force."""


class Clock(Protocol):
    """Time, so that tests need not wait for it."""

    def now(self) -> float:
        """Return the wall clock in seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
