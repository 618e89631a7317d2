"""Modes (§9.1) and definitions on trial, which commands put before the configuration and the source.

Modes are stored across restarts. For commit-confirm, the file of the definitions on trial lies beside the
history, and is written before the kernel gets any of it. Confirming renames it into the history. Going back
renames it first, and removes it once the kernel has gone back. So an agent that starts after a crash in
between completes the way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from sgagent.agent.clock import time_left
from sgagent.agent.definitions import Definitions, Proposal
from sgagent.agent.state import directory as files
from sgagent.agent.state.directory import History, KeptDocuments, SealedFile, Terms, Trigger
from sgagent.core.link_patterns import is_pattern
from sgagent.core.lockout import NamedCut
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.json_model import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOverride:
    """A mode that stands before the configuration's."""

    interface: str | None
    """Null is every one that has none of its own here."""

    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOverrides:
    """Modes that stand before those of the configuration."""

    everywhere: Mode | None = None
    """For every interface that has none of its own here."""

    by_interface: Mapping[str, Mode] = field(default_factory=dict)

    def of(self, interface: ResolvedInterface) -> Mode | None:
        """Return the mode that stands before the configuration's; None where that one holds."""
        of_pattern = self.by_interface.get(interface.pattern or "", self.everywhere)
        return self.by_interface.get(interface.name, of_pattern)

    def over(self, policy: ResolvedPolicy) -> ResolvedPolicy:
        """Return a policy in these modes."""
        if not self:
            return policy
        interfaces = (*policy.interfaces, *self._links_of_patterns(policy))
        policy = replace(policy, interfaces=tuple(sorted(interfaces, key=attrgetter("name"))))
        return policy.with_judges(self._over)

    def _links_of_patterns(self, policy: ResolvedPolicy) -> Iterator[ResolvedInterface]:
        """Yield judges of their own for links of patterns that have a mode of their own."""
        judges = [one.judge for one in policy.patterns]
        for name in self.by_interface.keys() - {one.name for one in policy.interfaces}:
            judge = None if is_pattern(name) else policy.meant(name)
            if judge in judges:
                yield replace(judge, name=name, pattern=judge.name)

    def _over(self, interface: ResolvedInterface) -> ResolvedInterface:
        mode = self.of(interface)
        return interface if mode in (None, interface.mode) else replace(interface, mode=mode)

    def switched(self, interface: str | None, mode: Mode | None) -> ModeOverrides:
        """Return the overrides after one more.

        Args:
            interface: None is every interface, and takes the place of all overrides there are.
            mode: None is what the configuration says.
        """
        if interface is None:
            return ModeOverrides(everywhere=mode)
        others = {name: found for name, found in self.by_interface.items() if name != interface}
        return replace(self, by_interface=others if mode is None else {**others, interface: mode})

    def listed(self) -> Iterator[ModeOverride]:
        """Yield each, that of every interface first."""
        if self.everywhere is not None:
            yield ModeOverride(interface=None, mode=self.everywhere)
        for interface, mode in sorted(self.by_interface.items()):
            yield ModeOverride(interface=interface, mode=mode)

    def __bool__(self) -> bool:
        """Return whether anything stands before the configuration."""
        return self.everywhere is not None or bool(self.by_interface)


class ModeFile:
    """The file that overrides are kept in, over restarts and reboots."""

    def __init__(self, directory: Path) -> None:
        """Take the state directory; it is made when something is kept."""
        self._file = SealedFile(directory / "modes.json", "file of modes")

    def load(self) -> tuple[ModeOverrides, str | None]:
        """Return the kept modes, and the fault of the file; the configuration holds then."""
        body, fault = self._file.load(partial(from_json, _Body))
        if body is None:
            return ModeOverrides(), fault
        return ModeOverrides(everywhere=body.everywhere, by_interface=body.interfaces), fault

    def save(self, overrides: ModeOverrides) -> None:
        """Keep these instead of those before.

        Raises:
            OSError: nothing was changed.
        """
        if overrides:
            modes = dict(sorted(overrides.by_interface.items()))
            self._file.save(to_json(_Body(everywhere=overrides.everywhere, interfaces=modes)))
        else:
            self._file.remove()


@dataclass(frozen=True, slots=True)
class _Body:
    """The file's content below its checksum."""

    everywhere: Mode | None
    interfaces: dict[str, Mode]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """Definitions that are in force instead of the source's."""

    version: str
    origin: Trigger
    since: float | None
    """Seconds since the epoch."""

    held_back: str
    """The source's version that is not enforced."""

    remedy: str = ""
    """The command that enforces that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStatus:
    """The definitions that are given up unless they are confirmed."""

    version: str
    seconds_left: float
    goes_back_to: str | None
    """Null is nothing, as before."""


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

    def status(self, monotonic: float) -> PendingStatus:
        """Return the trial's status at a time."""
        left = self.seconds_left(monotonic)
        return PendingStatus(version=self.version, seconds_left=left, goes_back_to=self.goes_back_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChangeStatus:
    """A version of the source that waits, as it would cut logins."""

    version: str
    seconds_left: float
    """Until it is enforced without ``sgagent apply``."""

    sessions: tuple[NamedCut, ...] = ()

    @property
    def remedy(self) -> str:
        """Return the remedy of a person, in words."""
        return f"'sgagent apply' enforces it now, else it is enforced in {time_left(self.seconds_left)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingModeStatus:
    """A mode that is given up unless it is confirmed."""

    mode: Mode | None
    """Null is what the configuration says."""

    interface: str | None
    """Null is every one."""

    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMode:
    """A mode that is given up unless it is confirmed."""

    mode: Mode | None
    """None is what the configuration says."""

    interface: str | None
    """None is every one."""

    deadline: float
    """By the monotonic clock."""

    def status(self, monotonic: float) -> PendingModeStatus:
        """Return the mode's status at a time."""
        left = max(0.0, self.deadline - monotonic)
        return PendingModeStatus(mode=self.mode, interface=self.interface, seconds_left=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualOverride:
    """All commands that stand."""

    held: HeldBack | None = None
    pending: Pending | None = None
    pending_mode: PendingMode | None = None
    overrides: ModeOverrides = field(default_factory=ModeOverrides)


_PENDING = "pending.json"
_UNCONFIRMED = "unconfirmed.json"
_END_NOT_SAVED = "the end of a trial could not be saved"


class TrialFile:
    """The file of the definitions on trial. Each command takes the definitions and returns those after it."""

    def __init__(self, directory: Path) -> None:
        """Take the state directory; it is made when a trial begins."""
        self._pending = directory / _PENDING
        self._unconfirmed = directory / _UNCONFIRMED

    def load(self) -> KeptDocuments | None:
        """Return the definitions that an earlier agent had on trial; None if there were none.

        Raises:
            DamagedStateError: there was something, but the file can't be read.
        """
        try:
            return files.decode_kept(self._pending.read_bytes(), str(self._pending))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.DamagedStateError(f"{self._pending}: {error.strerror}") from error

    @property
    def is_going_back(self) -> bool:
        """Return whether the kernel has to go back, or did and that is not noted yet."""
        return self._unconfirmed.exists()

    def proposed(self, definitions: Definitions, proposal: Proposal) -> Definitions:
        """Make a proposal the first candidate; one on trial is written down before.

        Raises:
            OSError: it could not be written, and nothing was changed.
        """
        if proposal.is_trial:
            try:
                self._write(definitions, proposal)
            except OSError:
                self._pending.unlink(missing_ok=True)  # the next agent would enforce it
                raise
        return replace(definitions, proposal=proposal)

    def begun_again(self, definitions: Definitions, terms: Terms) -> Definitions:
        """Count the time of a trial from now, as the kernel holds it; if that can't be kept, from before."""
        proposal = definitions.proposal
        if proposal is None or proposal.record.terms == terms:
            return definitions
        proposal = replace(proposal, record=replace(proposal.record, terms=terms))
        with contextlib.suppress(OSError):
            self._write(definitions, proposal)
        return replace(definitions, proposal=proposal)

    def _write(self, definitions: Definitions, proposal: Proposal) -> None:
        delivery, record = proposal.delivery, proposal.record
        links = definitions.written[1] if definitions.written else ()
        kept = KeptDocuments(delivery.snapshot.version, delivery.documents, links, record)
        files.write_durably(self._pending, files.encode_kept(kept))

    def confirmed(self, definitions: Definitions, history: History) -> Definitions:
        """Make the definitions on trial the newest of the history.

        Raises:
            OSError: it is still on trial.
        """
        assert definitions.proposal is not None  # noqa: S101 - the caller has checked
        history.take(self._pending)
        good, record = definitions.proposal.delivery, replace(definitions.proposal.record, terms=None)
        definitions = replace(definitions, proposal=None, is_trial_in_force=False)
        return replace(definitions, good=good, record=record, kept=None, written=None)

    def withdrawn(self, definitions: Definitions) -> Definitions:
        """Give up a proposal that the kernel refused: the definitions in force before still are."""
        return self.forgotten(replace(definitions, proposal=None, is_trial_in_force=False))

    def given_up(self, definitions: Definitions) -> Definitions:
        """End a trial, and note that the kernel has to go back: from now on it is no candidate."""
        definitions = replace(definitions, proposal=None, is_trial_in_force=False, is_going_back=True)

        def rename() -> None:
            if self._pending.exists():
                files.rename_durably(self._pending, self._unconfirmed)

        return replace(definitions, trial_fault=files.fault_of(rename, _END_NOT_SAVED))

    def forgotten(self, definitions: Definitions) -> Definitions:
        """Note that the kernel holds nothing of a trial any more."""
        fault = files.fault_of(lambda: files.remove_durably(self._pending, self._unconfirmed), _END_NOT_SAVED)
        return replace(definitions, trial_fault=fault)


def is_running(terms: Terms | None, boot_id: str, monotonic: float) -> bool:
    """Return whether a trial still runs; whatever is doubtful has ended it.

    The monotonic clock is the same for all processes of one boot, and nobody can set it.
    """
    return terms is not None and terms.boot_id == boot_id and terms.began <= monotonic < terms.deadline
