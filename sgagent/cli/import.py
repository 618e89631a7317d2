"""``sgagent import``: convert security groups of a cloud API or of other tools to native documents."""  # noqa: N999 - a module is named as its command

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import problem_as_json, replace_file
from sgagent.core.binding import Bindings
from sgagent.core.errors import (
    DocumentError,
    NotPermittedError,
    Origin,
    Problem,
    UsageError,
    count,
    printable,
)
from sgagent.core.model import Direction, GroupType, Snapshot
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.problems import FULL_DOCUMENTS
from sgagent.documents.writer import as_yaml, write_document
from sgagent.importers import Imported, import_aws, import_terraform
from sgagent.importers.console import Known, import_console
from sgagent.settings import Settings
from sgagent.settings.sources import AliyunSourceSettings
from sgagent.sources.aliyun.ecs_api import NotAllowedError
from sgagent.sources.factory import make_source

_STANDARD_INPUT = "-"
_CLOUD = "aliyun"
_CONSOLE = "console"
_READERS = {"aws": import_aws, "terraform": import_terraform}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("format", "the format of the input", choices=sorted((_CLOUD, _CONSOLE, *_READERS)))
    add(
        "files FILE",
        "of 'aws ec2 describe-…', of 'terraform show -json', or the console's export; none for aliyun",
        nargs="*",
        type=str,
    )
    add("--group ID", "of console: the group that the export is of")
    add(
        "--type TYPE",
        "of console: the group's type, where the export does not say it",
        choices=[one.value for one in GroupType],
    )
    add("--direction WAY", "of console: of all rules", choices=[one.value for one in Direction])
    add("--output PATH", "write to this file, or into this existing directory")
    add("--json", "print one JSON object, notes included")


def run(options: argparse.Namespace) -> int:
    """Write the document of all imported groups; print losses to standard error."""
    settings = load_settings(options)
    imported = _imported(options, settings)
    native = write_document(imported.snapshot)
    text = f"# Written by `sgagent import {options.format}`.\n{as_yaml(native)}"
    parse_documents([DocumentFile("<imported>", text.encode())], settings.limits)  # refuses what agents do
    place: Path | None = options.output
    if place is not None and place.is_dir():
        place /= f"{options.format}.yaml"
    if place is not None:
        replace_file(place, text)
    sizes = _sizes(imported.snapshot)
    if options.json:
        document = native if place is None else None
        print(json.dumps({"document": document, **_report(imported, sizes, place)}, indent=2))
        return 0
    for line in (*imported.problems, *imported.notes):
        print(line, file=sys.stderr)
    nouns = ("group", "rule", "interface", "prefix list")
    summary = ", ".join(count(number, noun) for number, noun in zip(sizes.values(), nouns, strict=False))
    sys.stdout.write(text if place is None else f"wrote {summary}: {printable(str(place))}\n")
    return 0


def _imported(options: argparse.Namespace, settings: Settings) -> Imported:
    """Return the definitions read, of files or of the API.

    Raises:
        UsageError: files where none are read, or none where some are.
        DocumentError: what is read can't be understood, or an agent would not take what it comes to.
    """
    if options.format == _CLOUD:
        if options.files:
            raise UsageError("import aliyun takes no files: it reads the API that [source] configures")
        return _from_the_cloud(settings)
    if not options.files:
        raise UsageError(f"import {options.format}: FILE is missing (- is standard input)")
    files = _read_all(options.files, settings.limits)
    if options.format == _CONSOLE:
        return import_console(files, settings.limits, _known(options))
    imported = _READERS[options.format](files, settings.limits)
    errors = _resolve(imported.snapshot).errors
    if errors:
        raise DocumentError(errors)
    return imported


def _known(options: argparse.Namespace) -> Known:
    """Return the options' facts of an export's group.

    Raises:
        UsageError: they lack what no export says.
    """
    if not options.group:
        raise UsageError(
            "import console: the export does not say of which group it is: --group ID is missing"
        )
    return Known(
        security_group_id=options.group,
        group_type=GroupType(options.type) if options.type else None,
        direction=Direction(options.direction) if options.direction else None,
    )


def _from_the_cloud(settings: Settings) -> Imported:
    """Return everything that the configured API returns.

    Objects with errors of meaning are reported and kept, because agents that they don't concern accept them
    (§8.3).

    Raises:
        UsageError: the configuration names another source.
        NotPermittedError: the credentials won't do.
        SourceUnavailableError: the API can't be reached, or a part of its answers is missing.
    """
    if not isinstance(settings.source, AliyunSourceSettings):
        raise UsageError('the configured source is no API (type = "aliyun" in [source], or --config)')
    try:
        delivery = make_source(settings).fetch()
    except NotAllowedError as error:
        raise NotPermittedError(str(error)) from error
    problems = (*delivery.problems, *_resolve(delivery.snapshot).problems)
    return Imported(snapshot=delivery.snapshot, problems=problems)


def _resolve(snapshot: Snapshot) -> Resolution:
    """Resolve definitions as a whole, with all their problems."""
    return resolve(snapshot, Bindings(), Exemptions(), scope=Scope.EVERYTHING)


def _read_all(names: Sequence[str], limits: Limits) -> list[DocumentFile]:
    """Return the files that were named, of each no more than it takes to refuse it.

    Raises:
        UsageError: one can't be read.
        DocumentError: together they are too large.
    """
    files: list[DocumentFile] = []
    room, most = limits.all_bytes, limits.document_bytes + 1
    for name in names:
        if name == _STANDARD_INPUT:
            file = DocumentFile("<stdin>", inputs.read_standard_input(most))
        else:
            file = DocumentFile(name, inputs.read_bounded(Path(name), most))
        files.append(file)
        room -= len(file.content)
        if room < 0:
            message = f"the files together hold more than {FULL_DOCUMENTS} times limits.document_bytes"
            remedy = "import some of them at a time, or raise limits.document_bytes"
            raise DocumentError([Problem.error(Origin(file=file.name), "too_large", None, message, remedy)])
    return files


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    """Return how many objects of each kind there are."""
    return {
        "security_groups": len(snapshot.security_groups),
        "rules": sum(len(group.rules) for group in snapshot.security_groups),
        "network_interfaces": len(snapshot.network_interfaces),
        "prefix_lists": len(snapshot.prefix_lists),
        "port_lists": len(snapshot.port_lists),
    }


def _report(imported: Imported, sizes: Mapping[str, int], place: Path | None) -> dict[str, object]:
    return {
        "output": None if place is None else str(place),
        **sizes,
        "notes": [
            {
                "effect": note.effect.value,
                "file": note.origin.file,
                "line": note.origin.line or None,
                "path": note.origin.path,
                "subject": note.subject,
                "message": note.message,
            }
            for note in imported.notes
        ],
        "warnings": list(map(problem_as_json, imported.problems)),
    }
