"""The commands of the control protocol and their answers (``docs/control.md``).

The queries are in :mod:`sgagent.agent.control.queries`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.agent.state.snapshot_file import Extent, Trigger
from sgagent.agent.step import NamedCut
from sgagent.core.errors import Problem
from sgagent.core.model import Mode

LONGEST_TRIAL_SECONDS = 86400.0
SHORTEST_TRIAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentDocument:
    """A document that a client read."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOrder:
    """Enforce these documents instead of the source's."""

    documents: tuple[SentDocument, ...]
    confirm_within: float | None = None
    """Seconds after which the agent goes back unless confirmed; null applies permanently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOrder:
    """Ask the source now, and enforce what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackOrder:
    """Go back to what was enforced before."""

    number: int | None = None
    """Of the history; null is the newest that is not in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcedAnswer:
    """What is in force after a command."""

    version: str | None
    """Null if nothing is in force, as before the definitions that the agent gave up."""

    is_changed: bool
    """Whether the command changed the table in the kernel."""

    interfaces: tuple[str, ...]
    """The bound interfaces."""

    held_back: str | None
    """The source's version that the agent does not enforce until the source delivers another."""

    seconds_left: float | None = None
    """Until the agent goes back, unless this is confirmed."""

    goes_back_to: str | None = None
    """The version that is in force then; null if nothing is."""

    warnings: tuple[Problem, ...] = ()
    sessions_cut: tuple[NamedCut, ...] = ()
    """Open sessions that the change has cut, as far as the agent checked them."""

    fault: str | None = None
    """Why the change was not stored and ends with the agent; null if it was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmOrder:
    """Keep the definitions that are on trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmAnswer:
    """What was confirmed."""

    is_confirmed: bool
    """False where nothing waits for it."""

    version: str | None = None
    overtaken_by: str | None = None
    """What is in force instead, as the source delivered it meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOrder:
    """Enforce or observe from now on, whatever the configuration says."""

    mode: Mode | None
    """Null is what the configuration says."""

    interface: str | None = None
    """Null is every one, and takes the place of earlier orders about single ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceMode:
    """The mode of one interface."""

    interface: str
    mode: Mode
    is_overridden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeAnswer:
    """The modes that hold now, of every interface that is judged."""

    interfaces: tuple[InterfaceMode, ...]
    fault: str | None = None
    """Why they will not outlive the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuestion:
    """Ask what was enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Definitions that were enforced, or what is wrong with their file."""

    number: int
    fault: str | None = None
    """Of a damaged file; then nothing else is known."""

    version: str | None = None
    origin: Trigger | None = None
    enforced_at: float | None = None
    """When they were enforced first."""

    documents: int | None = None
    bytes: int | None = None
    extent: Extent | None = None
    """Of the table that was compiled from them."""

    is_in_force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAnswer:
    """What was enforced, the newest first."""

    entries: tuple[HistoryEntry, ...]


Order = ApplyOrder | ReloadOrder | RollbackOrder | ConfirmOrder | ModeOrder
"""What changes something, and so is not for everybody who may ask."""

OrderAnswer = EnforcedAnswer | ConfirmAnswer | ModeAnswer
