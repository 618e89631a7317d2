"""``sgagent sign`` and ``sgagent keygen``: sign documents, and make the key for that."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path

from sgagent.agent.clock import count
from sgagent.cli import inputs
from sgagent.cli.main import option_adder
from sgagent.cli.output import format_json, replace_file
from sgagent.core.errors import UsageError
from sgagent.core.resolve import Scope
from sgagent.signatures import MalformedSignatureError, Manifest, PrivateKey, SignatureFile, time_in_words
from sgagent.sources.files.source import signature_path
from sgagent.sources.verified_parse import base_name

_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_LAST_SERIAL = 10**18 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser, is_required=True)
    text = "a private key that 'sgagent keygen' made; given twice, both sign"
    add("--key FILE", text, action="append", required=True)
    text = "the serial of this publication (default: the last one plus 1)"
    add("--serial N", text, type=inputs.whole_number)
    add("--expires TIME", "hosts refuse the signature after this time, like 90m, 12h or 30d")
    add("--strict", "treat warnings as errors")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Check the documents and write their signature beside them."""
    settings = inputs.load_settings(options)
    now = int(time.time())
    expires_at = None if options.expires is None else now + parse_lifetime(options.expires)
    path = inputs.required_definitions(options)
    place = signature_path(path)
    keys = [load_key(file) for file in options.key]
    delivery = inputs.fetch(settings, path)
    resolution = inputs.resolve_for_host(settings, delivery, (), scope=Scope.EVERYTHING)
    inputs.accept_or_refuse(resolution.problems, settings, options)
    serial = _next_serial(place) if options.serial is None else options.serial
    if not 1 <= serial <= _LAST_SERIAL:
        raise UsageError(f"--serial {serial}: expected a whole number from 1 to {_LAST_SERIAL}")
    contents = {base_name(file.name): file.content for file in delivery.documents}
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


def add_keygen_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    text = "the file of the private key, readable by its owner only (default: sgagent.key)"
    add("--out FILE", text, default=Path("sgagent.key"))
    add("--show FILE", "make no key; print the public key of this private one")
    add("--json", "print one JSON object")


def run_keygen(options: argparse.Namespace) -> int:
    """Write the private key, and print the public one as the configuration holds it."""
    if options.show is not None:
        path, key = options.show, load_key(options.show)
    else:
        path, key = options.out, PrivateKey.generate()
        _write_new(path, key.dump())
    public = key.public
    if options.json:
        print(json.dumps({"private_key": str(path), "public_key": str(public), "key_id": public.key_id}))
    else:
        print(f'public_keys = ["{public}"]')
    return 0


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, readable for its owner alone.

    Raises:
        UsageError: it is there already, or can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: the file exists, and keys are never overwritten") from None
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def load_key(path: Path) -> PrivateKey:
    """Return the private key of a file.

    Raises:
        UsageError: it can't be read, everybody may read it, or it holds no Ed25519 key.
    """
    try:
        if path.stat().st_mode & 0o007:
            raise UsageError(f"{path}: everybody can read this secret (chmod o= {path})")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    try:
        return PrivateKey.load(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}; `sgagent keygen` makes one") from error
