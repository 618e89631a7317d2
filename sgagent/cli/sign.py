"""``sgagent sign``: sign documents."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.keygen import load_keys
from sgagent.cli.main import option_adder
from sgagent.cli.output import format_json, replace_file
from sgagent.core.errors import Problem, UsageError, count
from sgagent.core.resolve import Scope
from sgagent.documents import DocumentFile
from sgagent.settings import Settings
from sgagent.signatures import MalformedSignatureError, Manifest, SignatureFile, time_in_words
from sgagent.sources.files.collector import signature_path
from sgagent.sources.verified_parse import base_name

_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_LAST_SERIAL = 10**18 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser, instead="")
    text = "a private key that 'sgagent keygen' made; given twice, both sign"
    add("--key FILE", text, action="append", required=True)
    add("--guardrails", "PATH holds guardrails, not definitions")
    text = "the serial of this publication (default: the last one plus 1)"
    add("--serial N", text, type=inputs.whole_number)
    add("--expires TIME", "hosts refuse the signature after this time, like 90m, 12h or 30d")
    add("--strict", "treat warnings as errors")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Check the documents and write their signature beside them."""
    settings = load_settings(options)
    now = int(time.time())
    expires_at = None if options.expires is None else now + parse_lifetime(options.expires)
    path = inputs.required_definitions(options)
    place = signature_path(path)
    keys = load_keys(options.key)
    documents, problems = (_guardrails if options.guardrails else _definitions)(settings, path)
    inputs.accept_or_refuse(problems, settings, options)
    serial = _next_serial(place) if options.serial is None else options.serial
    if not 1 <= serial <= _LAST_SERIAL:
        raise UsageError(f"--serial {serial}: expected a whole number from 1 to {_LAST_SERIAL}")
    contents = {base_name(file.name): file.content for file in documents}
    try:
        manifest = Manifest.of(contents, serial=serial, signed_at=now, expires_at=expires_at)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    replace_file(place, SignatureFile(manifest, tuple(key.sign(manifest) for key in keys)).render())
    if options.json:
        print(format_json(_report(place, manifest)))
    else:
        until = f", good until {time_in_words(expires_at)}" if expires_at is not None else ""
        print(f"signed {count(len(manifest.files), 'document')} as serial {serial}{until}: {place}")
    return 0


_Checked = tuple[tuple[DocumentFile, ...], tuple[Problem, ...]]
"""What is signed, and what is wrong with it."""


def _definitions(settings: Settings, path: Path) -> _Checked:
    delivery = inputs.fetch(settings, path)
    resolution = inputs.resolve_for_host(settings, delivery, (), scope=Scope.EVERYTHING)
    return delivery.documents, resolution.problems


def _guardrails(settings: Settings, path: Path) -> _Checked:
    """Return guardrails; raises DocumentError if they have errors."""
    from sgagent.documents.guardrails import parse_guardrails  # noqa: PLC0415 - for --guardrails alone

    documents = inputs.read_files(settings, path)
    return documents, parse_guardrails(documents, settings.limits)[1]


def parse_lifetime(text: str) -> int:
    """Return the seconds that a text like ``90m``, ``12h`` or ``30d`` means.

    Raises:
        UsageError: it means none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"--expires {text}: expected a time like 90m, 12h or 30d")
    return int(found[1]) * _UNITS[found[2]]


def _next_serial(place: Path) -> int:
    """Return the serial of the existing signature file plus one; 1 if there is no file.

    Raises:
        UsageError: the existing file can't be read or parsed, so its serial is unknown.
    """
    try:
        return SignatureFile.parse(place.read_bytes()).manifest.serial + 1
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise UsageError(f"{place}: can't be read: {error.strerror}") from error
    except MalformedSignatureError as error:
        raise UsageError(f"{place}: not a signature file: {error}; say --serial, or remove it") from error


def _report(place: Path, manifest: Manifest) -> dict[str, object]:
    return {
        "signature": str(place),
        "serial": manifest.serial,
        "signed_at": manifest.signed_at,
        "expires_at": manifest.expires_at,
        "files": [{"name": file.name, "sha256": file.sha256} for file in manifest.files],
    }
