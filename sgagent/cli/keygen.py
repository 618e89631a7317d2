"""``sgagent keygen``: create a key to sign documents with."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from sgagent.cli.main import option_adder
from sgagent.core.errors import UsageError
from sgagent.signatures import MOST_SIGNATURES, PrivateKey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    text = "the file of the private key, readable by its owner only (default: sgagent.key)"
    add("--out FILE", text, default=Path("sgagent.key"))
    add("--show FILE", "make no key; print the public key of this private one")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
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


def load_keys(paths: Sequence[Path]) -> tuple[PrivateKey, ...]:
    """Return the private keys that sign together.

    Raises:
        UsageError: as for :func:`load_key`, there are too many, or two files hold the same key.
    """
    keys = tuple(map(load_key, paths))
    if len({key.public for key in keys}) < len(keys):
        raise UsageError("--key: the same key is given twice")
    if len(keys) > MOST_SIGNATURES:
        raise UsageError(f"--key: {len(keys)} keys; expected at most {MOST_SIGNATURES}")
    return keys


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
