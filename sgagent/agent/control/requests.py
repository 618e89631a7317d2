"""The requests of the control protocol, queries and commands, and their answers.

The fields are those of ``docs/control.md``. Adding a field is compatible; changing or removing one needs a
new version of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.definitions import MissingLink
from sgagent.agent.flowlog.flow import Flow, FlowsLeftOut
from sgagent.agent.manual_override import (
    HeldBack,
    HeldChangeStatus,
    ModeOverride,
    PendingModeStatus,
    PendingStatus,
)
from sgagent.agent.names.name_table import NameStatus
from sgagent.agent.posture import Drift, InterfaceStatus, Posture
from sgagent.agent.state.directory import Extent, Trigger
from sgagent.agent.timed_rules import ExpiringRule, RecurringStatus
from sgagent.analysis.doctor.findings import Diagnosis, DiagnosisSummary
from sgagent.core.errors import Problem
from sgagent.core.guardrails import NamedViolation
from sgagent.core.lockout import NamedCut
from sgagent.core.model import Direction, Mode
from sgagent.ports import DeliveredPart

LONGEST_TRIAL_SECONDS = 86400.0
SHORTEST_TRIAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of definitions, as a source delivered it or a client read it."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyCommand:
    """Enforce these documents instead of the source's."""

    documents: tuple[Document, ...]
    confirm_within: float | None = None
    """Seconds after which the agent goes back unless confirmed; null applies permanently."""

    held: str | None = None
    """Instead of documents: the version of the source that waits, as it would cut a login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadCommand:
    """Ask the source now, and enforce its documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackCommand:
    """Go back to definitions that were enforced before."""

    number: int | None = None
    """Of the history; null is the newest that is not in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcedAnswer:
    """The definitions in force after a command."""

    version: str | None
    """Null if nothing is in force, as before the definitions that the agent gave up."""

    is_changed: bool
    """Whether the command changed the table in the kernel."""

    interfaces: tuple[str, ...]
    """The bound interfaces."""

    held_back: str | None
    """The source's version that the agent does not enforce until the source delivers another."""

    remedy: str | None = None
    """The command that enforces that one now; null where none is held back."""

    seconds_left: float | None = None
    """Until the agent goes back, unless this is confirmed."""

    goes_back_to: str | None = None
    """The version that is in force then; null if nothing is."""

    warnings: tuple[Problem, ...] = ()
    sessions_cut: tuple[NamedCut, ...] = ()
    """Open sessions that the change has cut, as far as the agent checked them."""

    fault: str | None = None
    """Why the change was not stored and ends with the agent; null if it was stored."""

    held_change: HeldChangeStatus | None = None
    """The source's version that waits, as it would cut a login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmCommand:
    """Keep the definitions that are on trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmAnswer:
    """The confirmed definitions."""

    is_confirmed: bool
    """False where nothing waits for it."""

    version: str | None = None
    overtaken_by: str | None = None
    """The version in force instead, as the source delivered it meanwhile."""

    is_of_mode: bool = False
    """Whether a mode was on trial, and no definitions."""

    mode: Mode | None = None
    """Null is the configuration's mode, or none."""

    fault: str | None = None
    """Why it will not outlive the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeCommand:
    """Enforce or observe from now on, whatever the configuration says."""

    mode: Mode | None
    """Null is what the configuration says."""

    interface: str | None = None
    """Null is every one, and takes the place of earlier commands about single ones."""

    confirm_within: float | None = None
    """Seconds after which the agent goes back unless confirmed; null is permanently."""


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

    seconds_left: float | None = None
    """Until the agent goes back, unless this is confirmed."""

    sessions_cut: tuple[NamedCut, ...] = ()
    """Open sessions that the change has cut, as far as the agent checked them."""


ControlCommand = ApplyCommand | ReloadCommand | RollbackCommand | ConfirmCommand | ModeCommand
"""What changes something, and so is not for everybody who may ask."""

CommandAnswer = EnforcedAnswer | ConfirmAnswer | ModeAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedQuery:
    """Ask who was dropped; a null field restricts nothing."""

    after: int = 0
    """Only flows behind the one of this number."""

    interface: str | None = None
    direction: Direction | None = None
    rule_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedAnswer:
    """Who was dropped, or would have been; as many of the newest as are remembered."""

    begun_at: float
    """When the agent began to count flows from 1, in seconds since the epoch."""

    newest: int
    """The number of the newest drop that is remembered, whether it was asked for or not; 0 without any."""

    flows: tuple[Flow, ...]
    """The oldest first."""

    left_out: tuple[FlowsLeftOut, ...]
    """How many more there were since the agent started, for each that decided, as far as was asked."""

    rate_per_second: int
    """How many packets of each rule and default the kernel logs in a second at most."""

    unavailable: str | None = None
    """Why drops are not recorded; null if they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuery:
    """Ask how the agent is doing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofStatus:
    """The outcome of the proof of the table in force."""

    outcome: str
    """``proved``, ``refuted`` or ``unknown``."""

    generation: int | None
    """Of the policy in the marks of sessions; null where none are remembered."""

    version: str | None
    """The snapshot in force."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailsStatus:
    """The outcome of the guardrails' statements, which no policy may break (§13.4)."""

    statements: int
    refused: str | None = None
    """The version that is refused for them."""

    fault: str | None = None
    """Why what is there now can't be read; what was read before holds on."""

    broken: tuple[NamedViolation, ...] = ()
    """By the version that is refused, else by what is in force, of one interface each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """The agent's state. Times are in seconds since the epoch; null is unknown."""

    agent_version: str
    pid: int
    posture: Posture
    posture_since: float | None
    is_ready: bool
    """As ``/readyz`` says, too."""

    not_ready_because: tuple[str, ...]
    snapshot_version: str | None
    snapshot_since: float | None
    """When this agent enforced that version first."""

    source: str
    """Where definitions come from."""

    is_source_up: bool | None
    source_reached_at: float | None
    source_error: str | None
    sources: tuple[DeliveredPart, ...] = ()
    is_refused: bool
    """Whether the newest definitions have errors, so that older ones stay in force."""

    errors: int
    """In the newest definitions."""

    first_errors: tuple[str, ...]
    kernel_error: str | None
    """Why the kernel refused what should be in force."""

    warnings: int | None
    unknown_objects: int | None
    first_warnings: tuple[str, ...] = ()
    """The first few; those about unknown objects before the others."""

    drift_repaired: int
    """How often the agent repaired changes by other processes since it started."""

    is_drift_unhealed: bool
    last_drift: Drift | None = None
    """The last change by another process."""

    is_drift_contested: bool = False
    """Whether another process changes the table so often that the agent waits between repairs."""

    faults: tuple[str, ...]
    """The faults of the agent's own files and its counting."""

    interfaces: tuple[InterfaceStatus, ...]
    sessions_cut: int = 0
    """How many open sessions the newest change that cut any has cut, of those that were looked at before."""

    first_sessions_cut: tuple[NamedCut, ...] = ()
    """The dearest of them."""

    sessions_cut_at: float | None = None
    flow_tables: tuple[str, ...] = ()
    """Flow tables of other tables, in words."""

    held: HeldBack | None = None
    """The version in force by hand instead of the source's."""

    pending: PendingStatus | None = None
    """The definitions in force on trial."""

    unbound_expected: int = 0
    """How many links should be bound here, and no link is."""

    first_unbound_expected: tuple[MissingLink, ...] = ()
    pending_mode: PendingModeStatus | None = None
    """The mode that is on trial."""

    held_change: HeldChangeStatus | None = None
    """The source's version that waits, as it would cut a login."""

    mode_overrides: tuple[ModeOverride, ...] = ()
    """Modes that stand before those of the configuration."""

    awaits_documents: bool = False
    """Whether the host never enforced anything and the source holds no document yet."""

    expiring: int = 0
    """How many rules of this host will end."""

    first_expiring: tuple[ExpiringRule, ...] = ()
    """The first few of them, the one that ends first at the front."""

    recurring: int = 0
    """How many rules of this host have hours (§13.2)."""

    first_recurring: tuple[RecurringStatus, ...] = ()

    names: tuple[NameStatus, ...] = ()
    platform: tuple[str, ...] = ()
    """The exemptions of the platform list where groups judge (§7.3), in words."""

    verified: ProofStatus | None = None
    """The result of the proof of the table in force; null until that was proved."""

    verified_outcome: str | None = None
    verified_at: float | None = None
    """As in ``verified``."""

    verified_in_words: tuple[str, ...] = ()
    """The outcome, and the packet that shows it or why it is not known."""

    counters_reset: int = 0
    """How often the agent noticed since it started that another process had reset the kernel's counters."""

    counters_reset_at: float | None = None
    is_verifying: bool = True
    """Whether the agent proves each change; else ``verified`` stays null."""

    guardrails: GuardrailsStatus | None = None
    """Null where none are configured."""

    doctor: DiagnosisSummary | None = None
    """The doctor's findings, in numbers; null before the first look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsQuery:
    """Ask for the definitions that are in force."""

    held: bool = False
    """Whether to ask for those of the source that wait instead, as they would cut a login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsAnswer:
    """The definitions that are in force, or wait."""

    snapshot_version: str | None
    """Null where there are none."""

    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Ask for the history of enforced definitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Definitions that were enforced, or the fault of their file."""

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
    """The enforced definitions, the newest first."""

    entries: tuple[HistoryEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorQuery:
    """Ask for other influences on the policy; the agent looks for them. Answered by a :class:`Diagnosis`."""


Query = (
    StatusQuery
    | DoctorQuery
    | HitsQuery
    | ExplainQuery
    | DeniedQuery
    | DocumentsQuery
    | HistoryQuery
    | ControlCommand
)
ControlAnswer = (
    StatusAnswer
    | Diagnosis
    | HitsAnswer
    | ExplainAnswer
    | DeniedAnswer
    | DocumentsAnswer
    | HistoryAnswer
    | CommandAnswer
)

KINDS: Mapping[str, tuple[type[Query], type[ControlAnswer]]] = {
    "status": (StatusQuery, StatusAnswer),
    "doctor": (DoctorQuery, Diagnosis),
    "hits": (HitsQuery, HitsAnswer),
    "explain": (ExplainQuery, ExplainAnswer),
    "history": (HistoryQuery, HistoryAnswer),
    "apply": (ApplyCommand, EnforcedAnswer),
    "confirm": (ConfirmCommand, ConfirmAnswer),
    "reload": (ReloadCommand, EnforcedAnswer),
    "rollback": (RollbackCommand, EnforcedAnswer),
    "mode": (ModeCommand, ModeAnswer),
    "documents": (DocumentsQuery, DocumentsAnswer),
    "denied": (DeniedQuery, DeniedAnswer),
}
"""Each query by its word, and its answer."""
