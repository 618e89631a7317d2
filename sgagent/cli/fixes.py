"""Fixes of ``sgagent lint``: as JSON and as replaced text, and written into the documents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sgagent.analysis.compare import Effect, FlowChange
from sgagent.analysis.flow_text import ObjectNames
from sgagent.analysis.lint.edits import Fix, RuleEdit, changed_flows, edit_snapshot, merged
from sgagent.analysis.lint.findings import CODES
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import LintSubject
from sgagent.cli.output import replace_files
from sgagent.cli.plan import MOST_SHOWN, flow_as_json, flow_as_text
from sgagent.core.errors import DocumentError, UsageError, count, printable
from sgagent.core.model import SecurityGroupRule, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile, parse_documents
from sgagent.documents.text_edits import (
    Fields,
    NotEditableError,
    Replacement,
    apply_replacements,
    replacements,
)
from sgagent.ports import Delivery
from sgagent.settings import Settings

LookAt = Callable[[Snapshot], LintSubject]


@dataclass(frozen=True, slots=True)
class PlacedReplacement:
    """A replacement by lines and columns, both from 1; the end is the first character that stays."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True)
class FixWriter:
    """Writes fixes as scripts and editors read them."""

    subject: LintSubject
    delivery: Delivery

    @cached_property
    def names(self) -> ObjectNames:
        """Return the names of the judges' objects."""
        judges = ResolvedPolicy(interfaces=tuple(attachment.judge for attachment in self.subject.attachments))
        return ObjectNames.of(judges, definitions=self.subject.snapshot)

    def as_json(self, fix: Fix) -> dict[str, object]:
        """Return the edits, and their effect in the words of ``plan --json``."""
        return {
            "edits": list(map(edit_as_json, fix.edits)),
            "effect": "plan" if fix.changes_verdicts else "none",
            "flows": [flow_as_json(flow, self.names) for flow in fix.flows],
        }

    def words(self, fix: Fix) -> str:
        """Return the edits and their effect in the words of ``plan``."""
        return f"{', '.join(map(str, fix.edits))}: {effect_text(fix.flows)}"

    def changes(self, fix: Fix) -> dict[str, list[PlacedReplacement]]:
        """Return the replacements by file; nothing where that can't be done in place."""
        texts = {file.name: text_of(file) for file in self.delivery.documents}
        try:
            edits = edits_by_file(self.delivery.snapshot, fix.edits)
            return {
                name: [_placed(texts[name], one) for one in replacements(texts[name], by_path)]
                for name, by_path in edits.items()
            }
        except NotEditableError:
            return {}


def _placed(text: str, one: Replacement) -> PlacedReplacement:
    start, end = (
        (text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)) for place in (one.start, one.end)
    )
    return PlacedReplacement(start, end, one.text)


def edit_as_json(edit: RuleEdit) -> dict[str, object]:
    """Return an edit as the object that scripts read."""
    what = {"set": dict(edit.fields)} if edit.fields else {"remove": True}
    return {"rule_id": edit.rule_id, "security_group_id": edit.security_group_id, **what}


def effect_text(flows: Iterable[FlowChange]) -> str:
    """Return the number of changes, as the first line of ``plan`` has it."""
    effects = [flow.effect for flow in flows]
    if not effects:
        return "no verdict changes"
    return f"opens {effects.count(Effect.OPENS)}, closes {effects.count(Effect.CLOSES)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The result of editing."""

    delivery: Delivery
    """The definitions as they are now."""

    edits: tuple[RuleEdit, ...]
    files: tuple[str, ...]
    flows: tuple[FlowChange, ...]
    names: ObjectNames

    def lines(self) -> Iterator[str]:
        """Yield the lines for people: the plan, then the edits."""
        for flow in self.flows[:MOST_SHOWN]:
            yield printable(f"{flow.effect.value} {flow_as_text(flow, self.names)}")
        if len(self.flows) > MOST_SHOWN:
            yield f"… and {len(self.flows) - MOST_SHOWN} more"
        yield from map(str, self.edits)
        if self.edits:
            where = f"{count(len(self.edits), 'edit')} in {', '.join(self.files)}"
            yield f"{where}: {effect_text(self.flows)}"
        else:
            yield "nothing to fix"
        yield ""

    def as_json(self) -> dict[str, object]:
        """Return the result as the object that scripts read."""
        return {
            "fixed": {
                "edits": list(map(edit_as_json, self.edits)),
                "files": list(self.files),
                "effect": "plan" if self.flows else "none",
                "flows": [flow_as_json(flow, self.names) for flow in self.flows],
            }
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which fixes are made."""

    codes: frozenset[str] | None
    """Those of these checks; None for all that change no verdict."""

    disabled: frozenset[str]
    """Checks that are left out where no codes are given."""

    @property
    def left_out(self) -> Container[str]:
        """Return the checks that are not run."""
        return self.disabled if self.codes is None else frozenset(CODES) - self.codes

    def some(self, fixes: Sequence[Fix]) -> Sequence[Fix]:
        """Return fixes that can be made together: all that change no verdict, or else one."""
        harmless = [one for one in fixes if not one.changes_verdicts]
        return harmless or (() if self.codes is None else fixes[:1])


def fix_documents(settings: Settings, delivery: Delivery, look_at: LookAt, wanted: Wanted) -> Fixed:
    """Make the edits that findings suggest, until none suggests any more, and write the files.

    Args:
        settings: what documents may cost.
        delivery: the definitions as they are, of files.
        look_at: makes the subject of checks.
        wanted: which fixes are made.

    Raises:
        UsageError: the definitions can't be edited in place.
    """
    before = look_at(delivery.snapshot)
    edits = _all_edits(delivery.snapshot, look_at, wanted)
    after = _edited(settings, delivery, edits)
    flows = changed_flows(
        [(attachment.interfaces, attachment.judge) for attachment in before.attachments],
        edits,
        before.members,
    )
    if flows and wanted.codes is None:
        raise UsageError("the fixes together would change a verdict: nothing was edited")
    changed = [new for old, new in zip(delivery.documents, after.documents, strict=True) if old != new]
    replace_files({Path(file.name): file.content.decode() for file in changed})
    return Fixed(
        delivery=after,
        edits=edits,
        files=tuple(file.name for file in changed),
        flows=flows,
        names=FixWriter(before, delivery).names,
    )


_ROUNDS = 1000
"""More than any definitions need that are no attack."""


def _all_edits(snapshot: Snapshot, look_at: LookAt, wanted: Wanted) -> tuple[RuleEdit, ...]:
    """Return the edits of all wanted fixes; each round is tried on the result of those before."""
    edits: tuple[RuleEdit, ...] = ()
    for _ in range(_ROUNDS):
        found = lint(look_at(edit_snapshot(snapshot, edits)), wanted.left_out)
        chosen = wanted.some([one.fix for one in found if one.fix is not None])
        if not chosen:
            break
        edits = merged((*edits, *(edit for one in chosen for edit in one.edits)))
    return edits


def _edited(settings: Settings, delivery: Delivery, edits: tuple[RuleEdit, ...]) -> Delivery:
    """Return the definitions with edited texts, which were read again and mean the same as the edits.

    Raises:
        UsageError: they can't be edited in place.
    """
    try:
        by_file = edits_by_file(delivery.snapshot, edits)
        documents = [_edit_file(file, by_file.get(file.name, {})) for file in delivery.documents]
    except NotEditableError as error:
        raise UsageError(f"{error}: edit it by hand (--json has the edits)") from None
    wanted = _content(edit_snapshot(delivery.snapshot, edits))
    try:
        snapshot, problems = parse_documents(documents, settings.limits, delivery.snapshot.version)
    except DocumentError:
        snapshot, problems = Snapshot(version=""), ()
    if _content(snapshot) != wanted:
        names = ", ".join(sorted(by_file))
        raise UsageError(f"{names}: an edit would change other rules, too, as anchors do: edit it by hand")
    return replace(delivery, snapshot=snapshot, problems=problems, documents=tuple(documents))


def _content(snapshot: Snapshot) -> tuple[Snapshot, list[Counter[SecurityGroupRule]]]:
    """Return definitions without the ids of rules, some of which are derived from their content."""
    groups = [replace(group, rules=()) for group in snapshot.security_groups]
    rules = (map(_without_id, group.rules) for group in snapshot.security_groups)
    return replace(snapshot, security_groups=tuple(groups)), list(map(Counter, rules))


def _without_id(rule: SecurityGroupRule) -> SecurityGroupRule:
    return replace(rule, rule_id="")


def _edit_file(file: DocumentFile, edits: Mapping[str, Fields | None]) -> DocumentFile:
    if not edits:
        return file
    text = text_of(file)
    mark = file.content[: len(file.content) - len(text.encode())]
    try:
        changes = replacements(text, edits)
    except NotEditableError as error:
        raise NotEditableError(f"{file.name}: {error}") from None
    return replace(file, content=mark + apply_replacements(text, changes).encode())


def text_of(file: DocumentFile) -> str:
    """Return the text of a file that was read, without a byte order mark."""
    return file.content.decode("utf-8-sig")


def edits_by_file(snapshot: Snapshot, edits: Iterable[RuleEdit]) -> dict[str, dict[str, Fields | None]]:
    """Return by file and path the new fields of a rule; None where it is removed.

    Raises:
        NotEditableError: a rule is of a saved answer of the cloud.
    """
    rules: dict[tuple[str, str], SecurityGroupRule] = {
        (group.security_group_id, rule.rule_id): rule
        for group in snapshot.security_groups
        for rule in group.rules
    }
    found: dict[str, dict[str, Fields | None]] = {}
    for edit in edits:
        origin = rules[edit.key].origin
        if not _NATIVE.search(origin.path):
            raise NotEditableError(f"{origin.file}: it is an answer of the cloud, where rules are edited")
        found.setdefault(origin.file, {})[origin.path] = edit.fields or None
    return found


_NATIVE = re.compile(r"(^|\.)security_groups\[[0-9]+\]\.rules\[[0-9]+\]$")
