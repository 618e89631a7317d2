"""A plan reads, resolves and compiles two versions with one memory, and finds what it finds without."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import event, given

from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.agent.timed_rules import recurring_rules
from sgagent.analysis.compare import compare
from sgagent.analysis.flow_text import ObjectNames
from sgagent.cli.inputs import resolve_everywhere, resolve_for_host
from sgagent.cli.main import main
from sgagent.cli.plan import PlanReport, as_json
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.errors import DocumentError
from sgagent.core.memo import Memo
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.parse import parse_other_version
from sgagent.documents.writer import as_yaml, write_document
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import describe
from sgagent.ports import Delivery
from sgagent.settings import Settings, parse_settings
from tests.draws import Draws
from tests.edits import edited
from tests.generators import Case
from tests.property.test_memory import joined
from tests.property.test_parse_cache import CONTENTS, LIMITS
from tests.strategies import cases, draws, examples

GOOD = tuple(CONTENTS[number] for number in (0, 1, 2, 4, 6, 7, 8, 9, 10))
NAMES = ("a.yaml", "b.yaml", "c.json", "d.JSON")


@examples(50)
@given(cases(most_rules=6), draws())
def test_a_plan_is_what_each_side_alone_makes_of_it(case: Case, draws: Draws) -> None:
    """The whole JSON object is the same as where each side is read, resolved and compiled alone."""
    other = edited(draws, case)
    others = () if other is None else (other[0].snapshot,) * 4
    new = draws.choice((case.snapshot, joined(draws, case.snapshot), *others))
    with place_of_a_host() as place:
        old_files = write(draws, place.path / "old", write_document(case.snapshot))
        new_files = write(draws, place.path / draws.choice(("new", "old.d")), write_document(new))
        on = [f"{hand.interface}={','.join(hand.security_group_ids)}" for hand in case.bindings]
        arguments = draws.choice(([f"--interface={argument}" for argument in on], ["--everywhere"]))
        command = ["--definitions", str(new_files[0].parent), *arguments]
        if draws.chance(50):
            command += ["--against", str(old_files[0].parent)]
        else:
            documents = tuple(DocumentFile(str(path), path.read_bytes()) for path in old_files)
            StateDirectory(place.path / "state").keep(KeptDocuments("v1", documents))
        if "--everywhere" in arguments:
            old, new_ = (resolve_everywhere(place.settings, alone(files)) for files in (old_files, new_files))
        else:
            old, new_ = (
                resolve_for_host(place.settings, alone(files), on) for files in (old_files, new_files)
            )
        wanted = report_of(old.policy, new_, place.settings, alone(new_files))
        code, found = place.plan(*command, "--json")
    event(f"refused: {code != 0}")
    event(f"changes: {wanted.changes}")
    if new_.errors:
        assert code != 0
        return
    answer = json.loads(found)
    assert answer == {**as_json(wanted), "against": answer["against"]}


@dataclass(frozen=True, slots=True)
class HostPlace:
    """A directory that is a host's: its configuration, state and documents."""

    path: Path
    settings: Settings

    def plan(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and the output of a plan."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            code = main(["plan", "--config", str(self.path / "sgagent.toml"), *arguments])
        return code, output.getvalue()


@contextlib.contextmanager
def place_of_a_host() -> Iterator[HostPlace]:
    """Make the directory, and remove it in the end."""
    with TemporaryDirectory() as directory:
        text = f'[state]\ndirectory = "{directory}/state"\nruntime_directory = "{directory}/run"\n'
        (Path(directory) / "sgagent.toml").write_text(text)
        yield HostPlace(Path(directory), parse_settings(text, "sgagent.toml"))


def write(draws: Draws, directory: Path, document: Mapping[str, object]) -> list[Path]:
    """Write a document down in a directory; return its files in the order of their names."""
    directory.mkdir()
    name, content = draws.choice(
        (
            ("all.json", json.dumps(document)),
            ("all.json", json.dumps(document, indent=1)),
            ("all.yaml", json.dumps(document, indent=2)),
            ("all.yaml", as_yaml(document)),
            ("other.yaml", as_yaml(document)),
        )
    )
    path = directory / name
    path.write_text(content)
    return [path]


def alone(files: list[Path]) -> Delivery:
    """Return what files come to where nothing was read before."""
    documents = tuple(DocumentFile(str(path), path.read_bytes()) for path in files)
    snapshot, problems = parse_documents(documents, Limits(), "unnamed")
    return Delivery(snapshot=snapshot, problems=problems)


def report_of(old: ResolvedPolicy, new: Resolution, settings: Settings, candidate: Delivery) -> PlanReport:
    """Return the report on two sides that have nothing in common but what is equal."""
    comparison = compare(old, new.policy)
    operations = operations_of(old, new.policy, settings)
    return PlanReport(
        origin="",
        comparison=comparison,
        names=ObjectNames.of(old, new.policy, definitions=candidate.snapshot),
        sessions=(),
        operations=operations,
        changes=not comparison.is_nothing or bool(operations),
        expiring=new.policy.expiring,
        recurring=recurring_rules(new.policy),
    )


def operations_of(old: ResolvedPolicy, new: ResolvedPolicy, settings: Settings) -> tuple[str, ...]:
    """Return what the kernel would be told; only of two empty policies is it known that nothing changes."""
    if old == new == ResolvedPolicy():
        return ()
    layout, logging = MarkLayout(settings.enforcement.mark_mask), settings.flow_log.logging
    if old == ResolvedPolicy():
        found = enforce(new, None, (), layout, flow_logging=logging)
    else:
        state = first_state([interface.name for interface in old.interfaces], layout)
        table = compile_(old, layout, state, logging).ruleset
        enforced = Enforced(policy=old, ruleset=table)
        found = enforce(new, table, (), layout, enforced=enforced, flow_logging=logging)
    return tuple(map(describe, found.plan.operations))


@given(draws())
def test_another_version_is_read_as_it_is_read_alone(draws: Draws) -> None:
    """Snapshot and errors are the same, with the files' own names, whatever was read before."""
    memory, limits = Memo(), draws.choice((LIMITS, Limits(), Limits()))
    first = files_in(draws, draws.choice(("new", "")))
    with contextlib.suppress(DocumentError):
        parse_documents(first, limits, "unnamed", memory)
    second = files_in(draws, "old")
    found, wanted = (
        problems_or_snapshot(partial(parse_documents, second, limits, "v1")),
        problems_or_snapshot(lambda: (parse_other_version(second, first, limits, "v1", memory), ())),
    )
    event(f"refused: {isinstance(wanted, str)}")
    assert found == wanted


def problems_or_snapshot(parse: Callable[[], tuple[Snapshot, object]]) -> str | Snapshot:
    """Return the snapshot, which is compared without places, or the errors, with all places."""
    try:
        return parse()[0]
    except DocumentError as error:
        return repr(error.problems)


def files_in(draws: Draws, directory: str) -> list[DocumentFile]:
    """Return some files of a directory, or what a store has under names with a directory."""
    names = draws.sample(NAMES, draws.choice((1, 1, 2, 3, 4)))
    contents = draws.choice((CONTENTS, GOOD))
    prefix = f"{directory}/" if directory else ""
    return [DocumentFile(prefix + name, draws.choice(contents).encode()) for name in names]


def test_a_version_in_another_directory_shares_its_rules() -> None:
    """What both versions say is the very same value, so that nobody looks at it again."""
    kind = '"direction": "egress", "policy": "drop", "protocol": "all"'
    rule = f'{{"rule_id": "%s", {kind}, "authorization_object": "%s"}}'
    content = '{"version": 1, "security_groups": [{"security_group_id": "sg-a", "rules": [\n%s]}]}'
    memory = Memo()
    files = [
        [DocumentFile(name, (content % ",\n".join(rule % one for one in rules)).encode())]
        for name, rules in (
            ("new/a.json", (("sgr-1", "::/0"), ("sgr-2", "10.0.0.0/8"))),
            ("old/b.json", (("sgr-1", "::/0"), ("sgr-2", "10.0.0.0/9"))),
        )
    ]
    candidate, _ = parse_documents(files[0], Limits(), "unnamed", memory)
    present = parse_other_version(files[1], files[0], Limits(), "unnamed", memory)
    assert present.security_groups[0].rules[0] is candidate.security_groups[0].rules[0]
    assert present.security_groups[0].rules[1] != candidate.security_groups[0].rules[1]
