"""Measure the saving of each seam of memoization: processor time of one change, from its files to the plan.

``python -m bench.memoization``; ``--write`` keeps it. It needs neither privilege nor a kernel: a table is in
force as soon as there is a plan for it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.definition_writers import Change, PolicyFiles
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy, invent
from bench.section import COSTS_PAGE, Section, finish, milliseconds, parser_of, table
from bench.sizes import SIZES, Size
from sgagent.compiler.enforce import Enforced, Enforcement, enforce
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions, Resolution, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.nft.marks import MarkLayout
from sgagent.nft.ruleset import Ruleset

NAME = "memoization"
CHANGES, QUICK_CHANGES = 9, 3
"""Of each kind."""

_COLLECTOR = (100_000, 20, 100)
"""As sgagent's own commands set it."""

_LIMITS = Limits(rules=1_000_000, addresses=10_000_000)
_LAYOUT = MarkLayout(0xFFFF0000)
_HANDS = (HandBinding(interface=INTERFACE, security_group_ids=(GROUP_ID,)),)


class PartialMemo(Memo):
    """A memo that remembers nothing at some seams."""

    def __init__(self, without: frozenset[Seam]) -> None:
        """Start empty."""
        super().__init__()
        self._without = without

    def part(self, seam: Seam, *of: Hashable) -> Memo:
        """Return the part, an empty one at the seams that are removed."""
        return Memo() if seam in self._without else super().part(seam, *of)


class Steps:
    """The pure part of the agent's steps: files, policy, table."""

    def __init__(self, new_memo: Callable[[], Memo] = Memo) -> None:
        """Start without documents and without a table, and with new memos."""
        self.documents: dict[str, DocumentFile] = {}
        self.snapshot: Snapshot | None = None
        self.resolution: Resolution | None = None
        self.enforcement: Enforcement | None = None
        self._new_memo = new_memo
        self._table: Ruleset | None = None
        self._enforced: Enforced | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the memoized results."""
        self._parsed, self._resolved, self._compiled = (self._new_memo() for _ in range(3))

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        self.documents[name] = DocumentFile(name, text.encode())

    def step(self) -> float:
        """Enforce the documents, and return the seconds of the processor until the plan."""
        began = time.process_time()
        snapshot, _ = parse_documents(list(self.documents.values()), _LIMITS, memo=self._parsed)
        self.snapshot = snapshot
        bindings = bind(snapshot, _HANDS, HostFacts(), automatically=False)
        self.resolution = resolve(snapshot, bindings, Exemptions(), memo=self._resolved)
        policy = self.resolution.policy
        found = enforce(policy, self._table, (), _LAYOUT, enforced=self._enforced, memo=self._compiled)
        took = time.process_time() - began
        self._table = found.plan.after
        self._enforced = found.enforcing(policy)
        self.enforcement = found
        return took


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """The costs of a change at one size, with some seams removed."""

    size: Size
    removed: str
    rule_seconds: float
    """Of the processor, for one rule that moves to another port; the median."""

    member_seconds: float
    """For one member that joins or leaves."""


_NOTHING, _ALL = "nothing", "all"


def measure(policy: BenchPolicy, removed: str, without: frozenset[Seam], changes: int) -> Ablation:
    """Make changes of both kinds, and return their costs."""
    files, steps = PolicyFiles(policy), Steps(lambda: PartialMemo(without))
    for name, text in files.all():
        steps.write(name, text)
    steps.step()
    took: dict[Change, list[float]] = {change: [] for change in Change}
    for change in Change:
        for number in range(changes):
            steps.write(*files.change(change, number))
            took[change].append(steps.step())
    return Ablation(
        size=policy.size,
        removed=removed,
        rule_seconds=median(took[Change.RULE]),
        member_seconds=median(took[Change.MEMBER]),
    )


def lines(found: Sequence[Ablation]) -> Iterator[str]:
    """Yield the table."""
    sizes = sorted({one.size for one in found})
    taken = {(one.removed, one.size): _pair(one) for one in found}
    removals = dict.fromkeys(one.removed for one in found)
    rows = ((removed, *(taken[removed, size] for size in sizes)) for removed in removals)
    yield ""
    yield from table(("removed", *map(str, sizes)), rows)


def _pair(one: Ablation) -> str:
    return f"{milliseconds(one.rule_seconds)}, {milliseconds(one.member_seconds)}"


def main(argv: Sequence[str]) -> int:
    """Measure, and print the table."""
    options = parser_of(NAME, "Measure what each seam of memoization saves.").parse_args(argv)
    gc.set_threshold(*_COLLECTOR)
    removals = {_NOTHING: frozenset[Seam](), **{seam.value: frozenset({seam}) for seam in Seam}}
    found = []
    for size in SIZES[2:3] if options.quick else SIZES[2:]:
        policy = invent(size)
        for removed, without in {**removals, _ALL: frozenset(Seam)}.items():
            changes = QUICK_CHANGES if options.quick else CHANGES
            found.append(measure(policy, removed, without, changes))
            print(*lines(found[-1:]), sep="\n", file=sys.stderr, flush=True)
    return finish(Section(NAME, list(lines(found)), found, COSTS_PAGE), [], writes=options.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
