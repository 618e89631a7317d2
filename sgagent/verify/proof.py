"""The proof that a table enforces a policy, for all packets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, product

from sgagent.core.model import Direction, Family
from sgagent.core.policy import LOOPBACK, UNIDENTIFIED, ResolvedInterface, ResolvedPolicy
from sgagent.nft import ruleset as nft
from sgagent.nft.names import entry_chain
from sgagent.verify import Outcome
from sgagent.verify.comparison import ViewComparison
from sgagent.verify.compiled_table import CompiledTable
from sgagent.verify.expectation import JUDGED_HOOKS, SessionMemory, stated_memory
from sgagent.verify.fate_comparison import (
    EVERYTHING,
    MOST_CELLS,
    ComparisonScope,
    Counterexample,
    Difference,
    InconsistentProofError,
    RefutedError,
    Subject,
)
from sgagent.verify.frames import Frame, make_frame
from sgagent.verify.packets import EVERY_MARK, CtDirection, Headers, Marks, reads_other_link, split_marks
from sgagent.verify.verified_table import BaseHook, UnsupportedStatementError, VerifiedChain, VerifiedTable
from sgagent.verify.views import View, views_of


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of a comparison."""

    outcome: Outcome
    cells: int
    """Into so many parts the packets were divided, in each of which all have one fate."""

    unsupported: tuple[str, ...] = ()
    """The parts that are not understood, where the outcome is unknown."""

    differences: tuple[Difference, ...] = ()
    """Where the outcome is refuted: packets on which ``run`` and ``expect`` differ."""

    @property
    def counterexample(self) -> Counterexample | None:
        """Return the packet that refutes."""
        return self.differences[0].example if self.differences else None


def prove(
    table: VerifiedTable,
    policy: ResolvedPolicy,
    *,
    memory: SessionMemory | None = None,
    scope: ComparisonScope = EVERYTHING,
    most_cells: int = MOST_CELLS,
    most_differences: int = 1,
) -> Proof:
    """Compare a table with a policy for every packet; callers measure the time.

    Args:
        table: as the kernel lists it, or a text states it.
        policy: what it is to enforce, its fail-safes and modes included.
        memory: generation and slots as the agent knows them; None: as the table states them.
        scope: what is compared.
        most_cells: after so many the outcome is unknown.
        most_differences: that are looked for.
    """
    if table.unsupported:
        return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=table.unsupported)
    subject = Subject(
        compiled=CompiledTable(table),
        policy=policy,
        memory=memory or stated_memory(table),
        scope=scope,
        most_cells=most_cells,
        most_differences=most_differences,
    )
    try:
        for views in _views_by_link(subject):
            _compare_link(subject, views)
    except (UnsupportedStatementError, InconsistentProofError) as reason:
        return Proof(outcome=Outcome.UNKNOWN, cells=subject.cells, unsupported=(str(reason),))
    except RefutedError:
        pass
    if subject.differences:
        return Proof(outcome=Outcome.REFUTED, cells=subject.cells, differences=tuple(subject.differences))
    if policy.unseen:
        return Proof(outcome=Outcome.UNKNOWN, cells=subject.cells, unsupported=policy.unseen)
    return Proof(outcome=Outcome.PROVED, cells=subject.cells)


def _compare_link(subject: Subject, views: Iterable[View]) -> None:
    """Compare for all packets of a link.

    Raises:
        RefutedError: there is a packet for which the table does not do what the policy says.
    """
    frames: dict[Hashable, Frame] = {}
    for view, marks in chain.from_iterable(_by_marks(subject, view) for view in views):
        key = (view.opened, view.is_elsewhere, view.family, view.hook in JUDGED_HOOKS)
        if key not in frames:
            has_members = subject.most_differences > 1
            frames[key] = make_frame(subject.compiled, _judge(subject, view), view, has_members=has_members)
        ViewComparison(subject, view, frames[key]).compare(marks)


def _by_marks(subject: Subject, view: View) -> Iterator[tuple[View, Marks | None]]:
    """Yield a view with the marks of its sessions; replies of entries not opened so here apart (§6.4)."""
    judge = _judge(subject, view)
    bit = subject.memory.elsewhere_bit(judge.name, view.opened) if judge else 0
    if view.direction is not CtDirection.REPLY or not bit:
        yield view, None if view.direction is None else EVERY_MARK
        return
    elsewhere, here = split_marks(EVERY_MARK, (bit, bit))
    yield view, here
    yield replace(view, is_elsewhere=True), elsewhere


def _judge(subject: Subject, view: View) -> ResolvedInterface | None:
    return subject.policy.judge(view.link) if view.hook in JUDGED_HOOKS else None


def _views_by_link(subject: Subject) -> Iterator[Iterator[View]]:
    """Yield views that hold all packets at all hooks that matter, link by link."""
    table = subject.compiled.table
    scope = subject.scope
    hooks = dict.fromkeys((*scope.hooks, *(table.base_chains if scope.others else ())))
    links = links_of(table, subject.policy)
    bound = tuple(link for link in links if subject.policy.judge(link) in subject.policy.bound)
    reading = {(read.hook, selector.key) for read, selector, _ in _matched_links(table)}
    others = {hook: _other_links(subject, hook, links, reading) for hook in hooks}
    for link in links if scope.others else bound:
        yield (
            view
            for hook in hooks
            for family, other_link in product(Family, others[hook])
            for view in views_of(hook, link, family, other_link)
            if scope.hidden or not (view.is_fragment or view.headers in _AUTHENTICATED)
        )


_AUTHENTICATED = (Headers.AUTHENTICATED, Headers.HIDDEN_ERROR, Headers.ANNOUNCED)


def _other_links(
    subject: Subject, hook: str, links: tuple[str, ...], reading: Collection[tuple[BaseHook | None, str]]
) -> tuple[str, ...]:
    """Return the links on the other side, where chains of a hook may read it; an empty name for none."""
    if not any(reads_other_link(key, hook) for at, key in reading if at is None or at.name == hook):
        return ("",)
    if subject.scope.forwarded or hook == "forward":
        return links
    return ("", *links) if hook == "postrouting" else ("",)


def links_of(table: VerifiedTable, policy: ResolvedPolicy) -> tuple[str, ...]:
    """Return all links that policy or table name, loopback, and some that nobody names.

    Of those there is one for each prefix of names that policy or table compare, which begins its name and no
    longer one does, and one whose name begins with none. Of the links that are identified by the policy and
    that neither policy nor table distinguishes, there is one.
    """
    known = {*policy.identified, *policy.lower_devices}
    named = {interface.name for interface in policy.interfaces} | {LOOPBACK, *known}
    prefixes = {"", *policy.prefixes}
    for value in (value for _, _, values in _matched_links(table) for value in values):
        if isinstance(value, nft.NamePrefix):
            prefixes.add(value.prefix)
        elif value != nft.NO_LINK:
            named.add(value.word)
    comparisons = tuple(_comparisons(table))
    alike: dict[Hashable, str] = {}
    for name in sorted(known):
        alike.setdefault((id(policy.judge(name)), *(compare(name) for compare in comparisons)), name)
    distinct = named - known | set(alike.values())
    return (*sorted(distinct), *(_unnamed(prefix, named, prefixes) for prefix in sorted(prefixes)))


def closes_strangers(table: VerifiedTable) -> bool:
    """Return whether a table closes all links that it knows nothing of: who made it follows links (§9.5)."""
    chain = table.chains.get("prerouting")
    closed = nft.Goto(entry_chain(Direction.INGRESS, UNIDENTIFIED))
    return chain is not None and chain.rules[-1:] == ((closed,),)


def _comparisons(table: VerifiedTable) -> Iterator[Callable[[str], Hashable]]:
    """Yield each comparison of a link's name in a table; its result identifies the outcome."""
    for _, statement in table.link_reads:
        if isinstance(statement, nft.Match):
            yield statement.has_word
        elif len(statement.selectors) == 1:
            elements = table.verdict_maps[statement.verdict_map].elements
            yield {one.key[0].word: one.verdict for one in elements if isinstance(one.key[0], nft.Symbol)}.get
        else:
            yield str  # each name may be another


def _unnamed(prefix: str, named: Container[str], prefixes: Iterable[str]) -> str:
    longer = tuple(other for other in prefixes if len(other) > len(prefix))
    ends = chain(() if prefix else ("other0",), map(chr, count(ord("0"))))
    names = (f"{prefix}{end}" for end in ends)
    return next(name for name in names if name not in named and not name.startswith(longer))


def _matched_links(
    table: VerifiedTable,
) -> Iterator[tuple[VerifiedChain, nft.Selector, Sequence[nft.Symbol | nft.NamePrefix]]]:
    """Yield each reader of a link's name, its chain, and the names that it is compared with."""
    for reached, one in table.link_reads:
        if isinstance(one, nft.Match):
            yield reached, one.selector, _names(one.values)
        else:
            for place, selector in enumerate(one.selectors):
                if selector.key_type is nft.KeyType.IFNAME:
                    found = table.verdict_maps.get(one.verdict_map)  # None of one that can't be read
                    elements = found.elements if found else ()
                    yield reached, selector, _names(element.key[place] for element in elements)


def _names(values: Iterable[nft.Comparable]) -> list[nft.Symbol | nft.NamePrefix]:
    return [value for value in values if isinstance(value, (nft.Symbol, nft.NamePrefix))]
