"""Signature files: a manifest, which lists documents by their hashes, and signatures over the manifest.

The file is text, so that a person can read what was signed and a version control system shows changes::

    sgagent signature 1
    serial 7
    signed 2026-11-25T04:00:00Z
    expires 2026-12-25T04:00:00Z
    file 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 web.yaml

    key 5f3c9a0b1c2d3e4f c2lnbmF0dXJl…

The signatures cover the bytes before the empty line. The parser accepts only the canonical text of a
manifest, so that no two readers can understand a file differently.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

_FIRST_LINE = "sgagent signature 1"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_FILE = re.compile(r"file ([0-9a-f]{64}) (.{1,512})")
_SERIAL = re.compile(r"serial ([1-9][0-9]{0,17})")
_KEY = re.compile(r"key ([0-9a-f]{16}) ([A-Za-z0-9+/=]{1,128})")


class MalformedSignatureError(Exception):
    """A text that is not a signature file; the message says why."""


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A document in a manifest."""

    name: str
    """Without a directory."""

    sha256: str
    """In hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The signed list of documents."""

    serial: int
    """From 1; a later publication has a larger one."""

    signed_at: int
    """Seconds since the epoch, by the signer's clock."""

    expires_at: int | None
    """Seconds since the epoch; None for never."""

    files: tuple[SignedFile, ...]
    """Sorted by name; names are unique."""

    @classmethod
    def of(
        cls, contents: Mapping[str, bytes], *, serial: int, signed_at: int, expires_at: int | None = None
    ) -> Self:
        """Return the manifest of documents by name.

        Raises:
            ValueError: a name has unprintable characters or is too long.
        """
        for name in contents:
            if not name.isprintable() or not _FILE.fullmatch(f"file {'0' * 64} {name}"):
                raise ValueError(f"a name that can't be signed: {name!r}")
        files = tuple(SignedFile(name, sha256_of(contents[name])) for name in sorted(contents))
        return cls(serial=serial, signed_at=signed_at, expires_at=expires_at, files=files)

    def render(self) -> str:
        """Return the canonical text; signatures cover its UTF-8 bytes."""
        expires = [] if self.expires_at is None else [f"expires {time_in_words(self.expires_at)}"]
        lines = (
            _FIRST_LINE,
            f"serial {self.serial}",
            f"signed {time_in_words(self.signed_at)}",
            *expires,
            *(f"file {file.sha256} {file.name}" for file in self.files),
        )
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of one key over a manifest."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SignatureFile:
    """A manifest and its signatures, not yet verified."""

    manifest: Manifest
    signatures: tuple[Signature, ...]

    def render(self) -> str:
        """Return the content of the file."""
        keys = (f"key {s.key_id} {base64.b64encode(s.value).decode()}\n" for s in self.signatures)
        return self.manifest.render() + "\n" + "".join(keys)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse a signature file.

        Raises:
            MalformedSignatureError: it is not a signature file, or not in canonical form.
        """
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise MalformedSignatureError("not UTF-8") from None
        head, empty, tail = text.partition("\n\n")
        if not empty:
            raise MalformedSignatureError("there is no signature after an empty line")
        found = cls(_parse_manifest(head.split("\n")), tuple(_parse_keys(tail.splitlines())))
        if found.render() != text:
            raise MalformedSignatureError("it is not written as `sgagent sign` writes it")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The verified signature of a delivery."""

    serial: int
    digest: str
    """Of the manifest; detects two publications with the same serial."""

    key_id: str
    expires_at: int | None


def sha256_of(content: bytes) -> str:
    """Return the hash of a document as a manifest has it."""
    return hashlib.sha256(content).hexdigest()


def time_in_words(seconds: int) -> str:
    """Return a time in the format of signature files."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime(_TIME)


def _parse_manifest(lines: list[str]) -> Manifest:
    """Parse the lines before the empty line."""
    if lines[0] != _FIRST_LINE:
        raise MalformedSignatureError(f"it does not begin with {_FIRST_LINE!r}")
    rest = iter(lines[1:])
    serial = _SERIAL.fullmatch(next(rest, ""))
    if serial is None:
        raise MalformedSignatureError("there is no serial")
    signed_at = _parse_time("signed", next(rest, ""))
    others = list(rest)
    is_limited = bool(others) and others[0].startswith("expires ")
    expires_at = _parse_time("expires", others.pop(0)) if is_limited else None
    files = tuple(map(_parse_file, others))
    names = [file.name for file in files]
    if not files or names != sorted(set(names)):
        raise MalformedSignatureError("its files are missing, not sorted, or duplicate")
    return Manifest(serial=int(serial[1]), signed_at=signed_at, expires_at=expires_at, files=files)


def _parse_time(word: str, line: str) -> int:
    try:
        parsed = dt.datetime.strptime(line, f"{word} {_TIME}").replace(tzinfo=dt.UTC)
    except ValueError:
        raise MalformedSignatureError(f"there is no line with a valid {word!r} time") from None
    return int(parsed.timestamp())


def _parse_file(line: str) -> SignedFile:
    match = _FILE.fullmatch(line)
    if match is None or not match[2].isprintable():
        raise MalformedSignatureError("a line names no file")
    return SignedFile(name=match[2], sha256=match[1])


def _parse_keys(lines: list[str]) -> Iterable[Signature]:
    for line in lines:
        match = _KEY.fullmatch(line)
        if match is None:
            raise MalformedSignatureError("a line after the empty line is not a signature")
        try:
            yield Signature(key_id=match[1], value=base64.b64decode(match[2], validate=True))
        except (binascii.Error, ValueError):
            raise MalformedSignatureError("a signature is not base64") from None
