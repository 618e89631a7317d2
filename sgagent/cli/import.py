"""``sgagent import``: write down as native documents what others say of security groups."""  # noqa: N999 - a module is named as its command

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sgagent.agent.telling.moments import count
from sgagent.cli.inputs import load_settings
from sgagent.core.binding import Bindings
from sgagent.core.errors import DocumentError, Problem, UsageError, printable
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions, Scope, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writing import write_document
from sgagent.documents.yamlwriting import as_yaml
from sgagent.imports import Imported, Note, import_aws, import_terraform

_STANDARD_INPUT = "-"
_READERS = {"aws": import_aws, "terraform": import_terraform}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("what", choices=sorted(_READERS), help="whose words are read")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="what 'aws ec2 describe-…' or 'terraform show -json' printed"
    )
    parser.add_argument(
        "--output", metavar="PATH", type=Path, help="write there: a file, or a directory that is there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, notes included")


def run(options: argparse.Namespace) -> int:
    """Write the document that all of it comes to; say on standard error what is not what it was."""
    limits = load_settings(options).limits
    imported = _READERS[options.what]([_read(name) for name in options.files], limits)
    native = write_document(imported.snapshot)
    text = f"# Written by `sgagent import {options.what}`.\n{as_yaml(native)}"
    _refuse_what_hosts_would_refuse(imported.snapshot, text, limits)
    place = _place(options.output, options.what)
    if place is not None:
        _replace(place, text)
    if options.json:
        report = _report(imported, place)
        print(json.dumps({"document": native if place is None else None, **report}, indent=2))
        return 0
    for line in (*imported.problems, *imported.notes):
        print(line, file=sys.stderr)
    print(text if place is None else f"wrote {_summary(imported.snapshot)}: {printable(str(place))}", end="")
    print("" if place is None else "\n", end="")
    return 0


def _read(name: str) -> DocumentFile:
    """Return a file that was named.

    Raises:
        UsageError: it can't be read.
    """
    if name == _STANDARD_INPUT:
        return DocumentFile("<stdin>", sys.stdin.buffer.read())
    try:
        return DocumentFile(name, Path(name).read_bytes())
    except OSError as error:
        raise UsageError(f"{name}: can't be read: {error.strerror}") from error


def _refuse_what_hosts_would_refuse(snapshot: Snapshot, text: str, limits: Limits) -> None:
    """Write nothing that an agent would not take.

    Raises:
        DocumentError: with what is wrong, where it stood in what was read as far as that is known.
    """
    errors = resolve(snapshot, Bindings(), Exemptions(), scope=Scope.EVERYTHING).errors
    if errors:
        raise DocumentError(errors)
    parse_documents([DocumentFile("<imported>", text.encode())], limits)


def _place(output: Path | None, what: str) -> Path | None:
    """Return the file to be written; in a directory it is named after what was read."""
    return output / f"{what}.yaml" if output is not None and output.is_dir() else output


def _replace(place: Path, text: str) -> None:
    """Write a file, all of it or nothing.

    Raises:
        UsageError: it can't be written.
    """
    draft = place.with_name(f".{place.name}.new")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(place)
    except OSError as error:
        raise UsageError(f"{place}: can't be written: {error.strerror}") from error


def _summary(snapshot: Snapshot) -> str:
    rules = sum(len(group.rules) for group in snapshot.security_groups)
    return ", ".join(
        count(number, noun)
        for number, noun in (
            (len(snapshot.security_groups), "group"),
            (rules, "rule"),
            (len(snapshot.network_interfaces), "interface"),
            (len(snapshot.prefix_lists), "prefix list"),
        )
    )


def _report(imported: Imported, place: Path | None) -> dict[str, object]:
    snapshot = imported.snapshot
    return {
        "output": None if place is None else str(place),
        "security_groups": len(snapshot.security_groups),
        "rules": sum(len(group.rules) for group in snapshot.security_groups),
        "network_interfaces": len(snapshot.network_interfaces),
        "prefix_lists": len(snapshot.prefix_lists),
        "port_lists": len(snapshot.port_lists),
        "notes": _notes(imported.notes),
        "warnings": _warnings(imported.problems),
    }


def _notes(notes: Sequence[Note]) -> list[dict[str, object]]:
    return [
        {
            "effect": note.effect.value,
            "file": note.origin.file,
            "line": note.origin.line or None,
            "path": note.origin.path,
            "subject": note.subject,
            "message": note.message,
        }
        for note in notes
    ]


def _warnings(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [
        {
            "code": problem.code,
            "file": problem.origin.file,
            "line": problem.origin.line or None,
            "path": problem.origin.path,
            "message": problem.message,
            "value": problem.value,
        }
        for problem in problems
    ]
