"""Policy selection: manually applied definitions, the source's newest ones, or the last good ones.

Manually applied definitions hold back the version that the source delivered at that moment. Once the source
delivers another version that can be enforced, the agent follows the source again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sgagent.agent.commit_confirm import TrialFile
from sgagent.agent.modes import ModeOverrides
from sgagent.agent.state.atomic_file import write_durably
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.state.snapshot_file import Extent, KeptDocuments, Record, Terms, Trigger
from sgagent.core.errors import DocumentError, NoDocumentError, Problem, SourceUnavailableError
from sgagent.core.host_facts import ExpectedLink
from sgagent.documents import Limits, parse_documents
from sgagent.ports import Clock, Delivery, Source
from sgagent.signatures import Signed
from sgagent.sources.signature_policy import encode_signature, signature_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Definitions that a command puts in force instead of the source's."""

    delivery: Delivery
    record: Record

    @property
    def is_trial(self) -> bool:
        """Return whether they have to be confirmed."""
        return self.record.terms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of asking the source."""

    newest: Delivery | None = None
    """What it delivered last."""

    problems: tuple[Problem, ...] = ()
    """Why it delivered nothing at the last try."""

    source_error: str | None = None
    """Why it could not be reached at the last try."""

    is_empty: bool = False
    """Whether that is only because it holds no document."""


class Definitions:
    """Select the definitions to enforce, and store those in force."""

    def __init__(self, source: Source, state: StateDirectory, limits: Limits, clock: Clock) -> None:
        """Take the source and the state directory; nothing is read yet."""
        self._source = source
        self._state = state
        self._limits = limits
        self._clock = clock
        self._trial_file = TrialFile(state.directory)
        self._loaded: KeptDocuments | None = None
        self._is_loaded = False
        self._kept_signature: Signed | None = None
        self._signature_fault: str | None = None
        self._kept_as: tuple[str, tuple[ExpectedLink, ...], Record] | None = None
        self.fetched = Fetched()
        """The last result of the source."""

        self.good: Delivery | None = None
        """The committed definitions, if this agent enforced them; not those on trial."""

        self.record = Record()
        """Why these are in force."""

        self.proposal: Proposal | None = None
        self.is_trial_in_force = False
        """Whether the kernel holds what is on trial."""

        self.is_going_back = False
        """Whether the kernel may still hold what was on trial."""

        self.faults: tuple[str, ...] = ()
        """What is wrong with what is kept."""

    def fetch(self) -> None:
        """Ask the source; what it does not deliver leaves the newest delivery as it is."""
        newest = self.newest
        try:
            self.fetched = Fetched(newest=self._source.fetch())
        except DocumentError as error:
            self.fetched = Fetched(newest=newest, problems=error.problems)
        except SourceUnavailableError as error:
            is_empty = isinstance(error, NoDocumentError)
            self.fetched = Fetched(newest=newest, source_error=str(error), is_empty=is_empty)

    @property
    def newest(self) -> Delivery | None:
        """Return what the source delivered last."""
        return self.fetched.newest

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return why the source delivered nothing at the last try."""
        return self.fetched.problems

    @property
    def source_error(self) -> str | None:
        """Return why it could not be reached at the last try."""
        return self.fetched.source_error

    def candidates(self) -> Iterator[Delivery]:
        """Yield what may be enforced, the best first."""
        kept = self.kept()
        if self.proposal is not None:
            yield self.proposal.delivery
        elif self.newest is not None and not self.problems and self.held_back is None:
            yield self.newest
        if self.good is not None:
            yield self.good
        elif kept is not None and (delivery := self._parse(kept)) is not None:
            yield delivery

    @property
    def in_force(self) -> Delivery | None:
        """Return the definitions in force, committed or on trial; None if this agent enforced none yet."""
        if self.proposal is not None and self.is_trial_in_force:
            return self.proposal.delivery
        return self.good

    @property
    def held_back(self) -> str | None:
        """Return the version of the source that is not enforced, as something else is by hand."""
        if self.newest is None:
            return None
        version = self.newest.snapshot.version
        if self.proposal is not None:
            return None if version == self.proposal.delivery.snapshot.version else version
        return version if version == self.record.held_back else None

    def is_on_trial(self, delivery: Delivery) -> bool:
        """Return whether definitions still have to be confirmed."""
        proposal = self.proposal
        return proposal is not None and proposal.is_trial and delivery is proposal.delivery

    @property
    def committed_version(self) -> str | None:
        """Return the version in force, or the one that a trial replaces temporarily."""
        if self.good is not None:
            return self.good.snapshot.version
        return self._loaded.version if self._loaded is not None else None

    def kept(self) -> KeptDocuments | None:
        """Return what an earlier run left in force; read once."""
        if not self._is_loaded:
            self._is_loaded = True
            self._loaded, self.faults = self._state.load()
            if self._loaded is not None:
                self.record = self._loaded.record
                self._kept_as = _key(self._loaded)
        return self._loaded

    def _parse(self, kept: KeptDocuments) -> Delivery | None:
        """Return kept documents as a source would deliver them; None if they have errors now."""
        try:
            return self.parse(kept)
        except DocumentError as error:
            self.faults = (*self.faults, str(error))
            self._loaded = None
            return None

    def parse(self, kept: KeptDocuments) -> Delivery:
        """Return kept documents as a source would deliver them.

        Raises:
            DocumentError: they have errors now, as another version or other limits see them.
        """
        snapshot, problems = parse_documents(kept.documents, self._limits, kept.version)
        return Delivery(snapshot=snapshot, problems=problems, documents=kept.documents)

    def accept(
        self, delivery: Delivery, links: tuple[ExpectedLink, ...], measure: Callable[[], Extent]
    ) -> None:
        """Take in that the kernel holds these definitions, and keep them unless they are on trial.

        Args:
            delivery: one of the candidates.
            links: where their network interfaces are.
            measure: tells how large the table is.
        """
        self.is_trial_in_force = self.is_on_trial(delivery)
        if self.is_trial_in_force:
            return
        if self.proposal is not None and delivery is self.proposal.delivery:
            self.record, self.proposal = self.proposal.record, None
        elif delivery is self.newest and self.proposal is None and not self._is_by_source(delivery):
            self.record = Record(enforced_at=self._clock.now())
        self.good, self._loaded = delivery, None
        self._keep(delivery, links, measure)
        self._keep_signature(delivery.signed)
        if self.is_going_back:
            self.gone_back()

    def _is_by_source(self, delivery: Delivery) -> bool:
        """Return whether these definitions are in force as the source's already."""
        is_kept = self._kept_as is not None and self._kept_as[0] == delivery.snapshot.version
        return is_kept and self.record.origin is Trigger.SOURCE

    def _keep(
        self, delivery: Delivery, links: tuple[ExpectedLink, ...], measure: Callable[[], Extent]
    ) -> None:
        """Keep the definitions that are in force, and where their network interfaces are, once."""
        version, record = delivery.snapshot.version, replace(self.record, terms=None)
        kept = KeptDocuments(version=version, documents=delivery.documents, links=links, record=record)
        if _key(kept) == self._kept_as or not delivery.documents:
            return
        kept = replace(kept, record=replace(record, extent=measure()))
        try:
            self._state.keep(kept)
        except OSError as error:
            self.faults = (f"the enforced definitions could not be kept: {error}",)
        else:
            self.record = kept.record
            self._kept_as, self.faults = _key(kept), ()

    def _keep_signature(self, signed: Signed | None) -> None:
        """Keep who vouched for what is in force, so that nothing older takes its place."""
        if signed is None or signed == self._kept_signature:
            return
        others = tuple(fault for fault in self.faults if fault != self._signature_fault)
        try:
            self._state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(signature_file(self._state.directory), encode_signature(signed))
        except OSError as error:
            self._signature_fault = f"the signature could not be kept: {error}"
            self.faults = (*others, self._signature_fault)
        else:
            self._kept_signature, self.faults = signed, others

    def propose(self, delivery: Delivery, origin: Trigger, terms: Terms | None = None) -> None:
        """Make definitions the first candidate.

        Args:
            delivery: the definitions.
            origin: whose wish it is.
            terms: if they have to be confirmed; they are kept beside the others before this returns.

        Raises:
            OSError: they could not be kept, and nothing was changed.
        """
        self.kept()
        version = delivery.snapshot.version
        record = Record(
            origin=origin,
            enforced_at=self._clock.now(),
            held_back=self._version_to_hold(version),
            terms=terms,
        )
        proposal = Proposal(delivery=delivery, record=record)
        if terms is not None:
            self._keep_trial(proposal)
        self.proposal = proposal

    def _keep_trial(self, proposal: Proposal) -> None:
        delivery, record = proposal.delivery, proposal.record
        links = self._kept_as[1] if self._kept_as else ()
        kept = KeptDocuments(
            version=delivery.snapshot.version, documents=delivery.documents, links=links, record=record
        )
        self._trial_file.begin(kept)

    def _version_to_hold(self, version: str) -> str | None:
        """Return what the source says now, as far as that is known and is another version."""
        if self.newest is not None:
            newest: str | None = self.newest.snapshot.version
        elif self.record.origin is Trigger.SOURCE:
            newest = self._kept_as[0] if self._kept_as else None
        else:
            newest = self.record.held_back
        return None if newest == version else newest

    def begin_again(self, terms: Terms) -> None:
        """Count the time of a trial from now, as the kernel holds it; if that can't be kept, from before."""
        if self.proposal is None or self.proposal.record.terms == terms:
            return
        self.proposal = replace(self.proposal, record=replace(self.proposal.record, terms=terms))
        with contextlib.suppress(OSError):
            self._keep_trial(self.proposal)

    def withdraw(self) -> None:
        """Give up a proposal that the kernel refused: what was in force still is."""
        self.proposal, self.is_trial_in_force = None, False
        self._forget_trial()

    def resume(self, kept: KeptDocuments) -> None:
        """Propose again what an earlier agent had on trial.

        Raises:
            DocumentError: it has errors now.
        """
        self.proposal = Proposal(delivery=self.parse(kept), record=kept.record)

    def left_on_trial(self) -> KeptDocuments | None:
        """Return what an earlier agent had on trial; None if that was nothing.

        Raises:
            DamagedStateError: it had something, but that can't be read.
        """
        return self._trial_file.load()

    @property
    def was_going_back(self) -> bool:
        """Return whether an earlier agent has not noted that the kernel went back."""
        return self._trial_file.is_going_back

    def confirm(self) -> None:
        """Commit the definitions on trial.

        Raises:
            OSError: they are still on trial.
        """
        assert self.proposal is not None  # noqa: S101 - the caller has checked
        self._trial_file.confirm(self._state.history)
        self.good, self.record = self.proposal.delivery, replace(self.proposal.record, terms=None)
        self.proposal, self.is_trial_in_force, self._loaded, self._kept_as = None, False, None, None

    def go_back(self) -> None:
        """End a trial: from now on it is no candidate."""
        self.proposal, self.is_trial_in_force, self.is_going_back = None, False, True
        try:
            self._trial_file.end()
        except OSError as error:
            self.faults = (f"the end of a trial could not be noted: {error}",)

    def gone_back(self) -> None:
        """Note that the kernel holds nothing of a trial any more."""
        self.is_going_back = False
        self._forget_trial()

    def _forget_trial(self) -> None:
        try:
            self._trial_file.forget()
        except OSError as error:
            self.faults = (f"the end of a trial could not be noted: {error}",)

    def has_enforced(self) -> bool:
        """Return whether this host ever committed definitions."""
        return self._state.has_enforced()


def _key(kept: KeptDocuments) -> tuple[str, tuple[ExpectedLink, ...], Record]:
    """Return a key that changes if the documents have to be written again."""
    fixed = Record(origin=kept.record.origin, held_back=kept.record.held_back)
    return kept.version, kept.links, fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """Definitions that are in force instead of the source's."""

    version: str
    origin: Trigger
    since: float | None
    """Seconds since the epoch."""

    held_back: str
    """The source's version that is not enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Definitions that are given up unless they are confirmed."""

    version: str
    deadline: float
    """By the monotonic clock."""

    goes_back_to: str | None
    """None is nothing, as before."""

    def seconds_left(self, monotonic: float) -> float:
        """Return how long there is to confirm."""
        return max(0.0, self.deadline - monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualOverride:
    """All orders that stand."""

    held: HeldBack | None = None
    pending: Pending | None = None
    overrides: ModeOverrides = field(default_factory=ModeOverrides)
