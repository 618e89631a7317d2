"""Policy selection: manually applied definitions, the source's newest ones, or the last good ones.

Manually applied definitions hold back the version that the source delivered at that moment. Once the source
delivers another version that can be enforced, the agent follows the source again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sgagent.agent.state.directory import KeptDocuments, Record, Trigger
from sgagent.core.binding import Bindings, HandBinding, HostFacts
from sgagent.core.errors import DocumentError, NoDocumentError, Problem, SourceUnavailableError
from sgagent.core.expected_links import ExpectedLink
from sgagent.core.link_topology import may_have_lower_devices
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import DeliveredPart, Delivery, Source
from sgagent.signatures import Signed


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
    """The result of asking the source."""

    newest: Delivery | None = None
    """Its last delivery."""

    problems: tuple[Problem, ...] = ()
    """Why it delivered nothing at the last try, or, of several sources, nothing new for some."""

    source_error: str | None = None
    """Why it, or one of several, could not be reached at the last try."""

    is_empty: bool = False
    """Whether that is only because it holds no document."""

    @property
    def parts(self) -> tuple[DeliveredPart, ...]:
        """Return each source's last delivery; of one source alone, only its signature is known."""
        return self.newest.all_parts if self.newest else ()

    def again(self, source: Source) -> Fetched:
        """Ask the source; a failed fetch leaves the newest delivery as it is."""
        try:
            newest = source.fetch()
            return Fetched(newest=newest, problems=newest.refused, source_error=newest.away)
        except DocumentError as error:
            return Fetched(newest=self.newest, problems=error.problems)
        except SourceUnavailableError as error:
            is_empty = isinstance(error, NoDocumentError)
            return Fetched(newest=self.newest, source_error=str(error), is_empty=is_empty)


WrittenKey = tuple[str, tuple[ExpectedLink, ...], Record]
"""Of a file of the history: another key means that the documents have to be written again."""


def written_key(kept: KeptDocuments) -> WrittenKey:
    """Return the key of documents as a file holds them."""
    fixed = Record(origin=kept.record.origin, held_back=kept.record.held_back)
    return kept.version, kept.links, fixed


def parse_delivery(documents: tuple[DocumentFile, ...], limits: Limits, version: str | None) -> Delivery:
    """Return documents as a source would deliver them; None names their version by a digest.

    Raises:
        DocumentError: they have errors, also as another version or other limits see them.
    """
    snapshot, problems = parse_documents(documents, limits, version)
    return Delivery(snapshot=snapshot, problems=problems, documents=documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """The definitions that may be enforced, those that are, and those that are stored."""

    fetched: Fetched = field(default_factory=Fetched)
    """The source's answer, as of the last step that was done."""

    kept: KeptDocuments | None = None
    """The documents that an earlier agent left in force, until this one enforces anything."""

    good: Delivery | None = None
    """The committed definitions, if this agent enforced them; not those on trial."""

    record: Record = field(default_factory=Record)
    """Why these are in force."""

    proposal: Proposal | None = None
    is_trial_in_force: bool = False
    """Whether the kernel holds the definitions on trial."""

    is_going_back: bool = False
    """Whether the kernel may still hold the definitions that were on trial."""

    waiting: str | None = None
    """The source's version that is not enforced yet, as it would cut a login (§7.4)."""

    written: WrittenKey | None = None
    """Of the newest file of the history."""

    signatures: Mapping[str, Signed] = field(default_factory=dict)
    """Those that this agent stored, by the source's place; that of the only one has none."""

    store_fault: str | None = None
    """Why the definitions in force are not stored."""

    trial_fault: str | None = None
    """Why the end of a trial is not noted."""

    signature_fault: str | None = None
    damage: tuple[str, ...] = ()
    """The faults of the documents that an earlier agent left in force."""

    @classmethod
    def left(cls, kept: KeptDocuments | None) -> Definitions:
        """Return the definitions of an agent that starts, with those that an earlier one left in force."""
        if kept is None:
            return cls()
        return cls(kept=kept, record=kept.record, written=written_key(kept))

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the faults of the stored files."""
        faults = (self.store_fault, self.trial_fault, self.signature_fault)
        return (*(fault for fault in faults if fault), *self.damage)

    @property
    def is_empty(self) -> bool:
        """Return whether there are no definitions at all."""
        return self.good is None and self.fetched.newest is None and self.kept is None

    def candidates(
        self, limits: Limits, note_damage: Callable[[str], None]
    ) -> Iterator[tuple[Delivery, bool]]:
        """Yield the definitions that may be enforced, the best first, and whether each replaces present ones.

        Args:
            limits: for documents that an earlier agent left; they are parsed when their turn comes.
            note_damage: receives what is wrong with them.
        """
        if self.proposal is not None:
            yield self.proposal.delivery, True
        elif (newest := self._newest_wanted) is not None:
            yield newest, True
        if self.good is not None:
            yield self.good, False
        elif self.kept is not None:
            try:
                delivery = parse_delivery(self.kept.documents, limits, self.kept.version)
            except DocumentError as error:
                note_damage(str(error))
            else:
                yield delivery, False

    @property
    def _newest_wanted(self) -> Delivery | None:
        newest, stays = self.fetched.newest, (self.held_back, self.waiting)
        if newest is None or self.fetched.problems != newest.refused or newest.snapshot.version in stays:
            return None
        return newest

    def damaged(self, damage: tuple[str, ...]) -> Definitions:
        """Return these definitions without those of an earlier agent, if these are damaged."""
        return replace(self, kept=None, damage=(*self.damage, *damage)) if damage else self

    @property
    def in_force(self) -> Delivery | None:
        """Return the definitions in force, committed or on trial; None if this agent enforced none yet."""
        if self.proposal is not None and self.is_trial_in_force:
            return self.proposal.delivery
        return self.good

    @property
    def held_back(self) -> str | None:
        """Return the version of the source that is not enforced, as something else is by hand."""
        if self.fetched.newest is None:
            return None
        version = self.fetched.newest.snapshot.version
        if self.proposal is not None:
            return None if version == self.proposal.delivery.snapshot.version else version
        return version if version == self.record.held_back else None

    def is_new_from_source(self, delivery: Delivery) -> bool:
        """Return whether definitions are the source's own, and not in force yet."""
        is_newest = delivery is self.fetched.newest and self.proposal is None
        return is_newest and delivery.snapshot.version != self.committed_version

    def is_ordered(self, delivery: Delivery) -> bool:
        """Return whether a command is about to put definitions in force, and not on trial."""
        proposal = self.proposal
        return proposal is not None and not proposal.is_trial and delivery is proposal.delivery

    def is_on_trial(self, delivery: Delivery) -> bool:
        """Return whether definitions still have to be confirmed."""
        proposal = self.proposal
        return proposal is not None and proposal.is_trial and delivery is proposal.delivery

    @property
    def committed_version(self) -> str | None:
        """Return the version in force, or the one that a trial replaces temporarily."""
        if self.good is not None:
            return self.good.snapshot.version
        return self.kept.version if self.kept is not None else None

    def accepted(self, delivery: Delivery, now: float) -> Definitions:
        """Return these definitions once the kernel holds one of the candidates.

        Args:
            delivery: the candidate.
            now: seconds since the epoch.
        """
        if self.is_on_trial(delivery):
            return replace(self, is_trial_in_force=True)
        record, proposal = self.record, self.proposal
        if proposal is not None and delivery is proposal.delivery:
            record, proposal = proposal.record, None
        elif delivery is self.fetched.newest and proposal is None:
            is_written = self.written is not None and self.written[0] == delivery.snapshot.version
            if not is_written or record.origin is not Trigger.SOURCE:  # it is not the source's already
                record = Record(enforced_at=now)
        return replace(
            self, is_trial_in_force=False, good=delivery, kept=None, record=record, proposal=proposal
        )

    def to_write(self, links: tuple[ExpectedLink, ...]) -> KeptDocuments | None:
        """Return the documents to write into the history; None if they are there, or there are none.

        Args:
            links: where the network interfaces of these definitions are.
        """
        if self.good is None or not self.good.documents:
            return None
        record = replace(self.record, terms=None)
        version, documents = self.good.snapshot.version, self.good.documents
        kept = KeptDocuments(version=version, documents=documents, links=links, record=record)
        return None if written_key(kept) == self.written else kept

    def version_to_hold(self, version: str, newest: Delivery | None) -> str | None:
        """Return the source's version of now, as far as that is known and is another one.

        Args:
            version: of definitions that are about to be enforced by hand.
            newest: what the source delivered last.
        """
        if newest is not None:
            said: str | None = newest.snapshot.version
        elif self.record.origin is Trigger.SOURCE:
            said = self.written[0] if self.written else None
        else:
            said = self.record.held_back
        return None if said == version else said


@dataclass(frozen=True, slots=True)
class KnownLinks:
    """Where network interfaces were found last, and which of them this agent has not found yet."""

    _by_id: Mapping[str, ExpectedLink]
    _missed: frozenset[str]
    """Ids of network interfaces."""

    _names_by_hand: frozenset[str]
    _found: frozenset[str] = frozenset()
    """Ids of those that are on a link now."""

    @classmethod
    def left(cls, before: Iterable[ExpectedLink], by_hand: Iterable[HandBinding]) -> KnownLinks:
        """Return the known links of an agent that starts.

        Args:
            before: what an earlier agent found.
            by_hand: bindings of the configuration; what they name is never expected anywhere else.
        """
        by_hand = tuple(by_hand)
        ids_by_hand = {hand.network_interface_id for hand in by_hand}
        by_id = ((link.network_interface_id, link) for link in before)
        links = {interface_id: link for interface_id, link in by_id if interface_id not in ids_by_hand}
        return cls(links, frozenset(links), frozenset(hand.interface for hand in by_hand))

    @property
    def missed(self) -> tuple[ExpectedLink, ...]:
        """Return the links on which the network interfaces are expected that were not found yet."""
        return tuple(sorted(self._by_id[interface_id] for interface_id in self._missed))

    @property
    def links(self) -> tuple[ExpectedLink, ...]:
        """Return where each network interface was found last, whether it is still there or not."""
        return tuple(sorted(self._by_id.values()))

    def following(self, found: Bindings, snapshot: Snapshot) -> KnownLinks:
        """Return these links with those found now, without those that the definitions no longer have."""
        bound = ((one.network_interface, one.interface) for one in found.bindings)
        there = {link.name: link for link in found.facts.links}
        ids = {
            interface.network_interface_id: name
            for interface, name in bound
            if interface is not None and name not in self._names_by_hand
        }
        new = {
            key: ExpectedLink(
                interface=name,
                network_interface_id=key,
                is_plain=name in there and not may_have_lower_devices(there, name),
            )
            for key, name in ids.items()
        }
        known = snapshot.interface_by_id
        links = {key: link for key, link in {**self._by_id, **new}.items() if key in known}
        missed = (self._missed - new.keys()) & links.keys()
        return replace(self, _by_id=links, _missed=missed, _found=frozenset(new))

    def unbound(self) -> Iterator[tuple[str, str]]:
        """Yield the id of each network interface that is on no link now, and the link that it was on last."""
        for link in self.links:
            if link.network_interface_id not in self._found:
                yield link.network_interface_id, link.interface

    def without_unbound(self, there: Container[str]) -> KnownLinks:
        """Return these links without those whose name is there and that are something else now."""
        gone = {link_id for link_id, name in self.unbound() if name in there}
        by_id = {link_id: link for link_id, link in self._by_id.items() if link_id not in gone}
        return replace(self, _by_id=by_id, _missed=self._missed - gone)


@dataclass(frozen=True, slots=True, order=True)
class MissingLink:
    """A network interface, or a name that the configuration binds, that no link of this host is."""

    network_interface_id: str | None
    """Null where the configuration names the groups itself."""

    interface: str | None
    """The link that it was or should be; null where it was never found here."""

    def __str__(self) -> str:
        """Return it in words."""
        if self.network_interface_id is None:
            return f"{self.interface}, by the configuration"
        return self.network_interface_id + (f", on {self.interface} before" if self.interface else "")


def missing_links(
    by_hand: Iterable[HandBinding],
    known: KnownLinks,
    snapshot: Snapshot,
    policy: ResolvedPolicy,
    facts: HostFacts,
) -> tuple[MissingLink, ...]:
    """Return the bindings of the documents and the configuration, of this host, that no link has.

    Documents may be those of a fleet: a network interface counts if it was found on this host before. Where
    nothing is bound at all each counts, as nobody can tell which of them is meant.
    """
    there = {link.name for link in facts.links if not link.is_loopback}
    found: list[tuple[str | None, str | None]] = [*_by_hand(by_hand, there), *known.unbound()]
    if not any(policy.judge(name) in policy.bound for name in there):
        ids = {link_id for link_id, _ in found}
        others = (one.network_interface_id for one in snapshot.network_interfaces)
        found += ((one, None) for one in others if one not in ids)
    return tuple(sorted((MissingLink(*one) for one in found), key=str))


def _by_hand(by_hand: Iterable[HandBinding], there: set[str]) -> Iterator[tuple[str | None, str]]:
    for one in by_hand:
        if one.pattern is None and one.interface not in there:
            yield one.network_interface_id, one.interface
