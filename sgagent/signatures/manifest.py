"""Write and read signature files: a list of documents by their hashes, and signatures over that list.

It is a text, so that a person can read what was signed and a version control system shows what changed::

    sgagent signature 1
    serial 7
    signed 2026-11-25T04:00:00Z
    expires 2026-12-25T04:00:00Z
    file 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 web.yaml

    key 5f3c9a0b1c2d3e4f c2lnbmF0dXJl…

What is signed are the bytes before the empty line. There is one way only to write a list down; a text that is
written otherwise is refused, so nothing can be read in two ways.
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
    """Say that a text is no signature file, and where it is wrong."""


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A document that is vouched for."""

    name: str
    """Without a directory."""

    sha256: str
    """In hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is vouched for: these documents and no others."""

    serial: int
    """From 1; a later publication has a larger one."""

    signed_at: int
    """Seconds since the epoch, as the signer's clock said."""

    expires_at: int | None
    """Seconds since the epoch; None is never."""

    files: tuple[SignedFile, ...]
    """Sorted by name; names are unique."""

    @classmethod
    def of(
        cls, contents: Mapping[str, bytes], *, serial: int, signed_at: int, expires_at: int | None = None
    ) -> Self:
        """Return the manifest of documents by their names.

        Raises:
            ValueError: a name can't stand in a line of text.
        """
        for name in contents:
            if not name.isprintable() or not _FILE.fullmatch(f"file {'0' * 64} {name}"):
                raise ValueError(f"a name that can't be signed: {name!r}")
        files = tuple(SignedFile(name, sha256_of(contents[name])) for name in sorted(contents))
        return cls(serial=serial, signed_at=signed_at, expires_at=expires_at, files=files)

    def render(self) -> str:
        """Return the one text that says this; what is signed are its bytes in UTF-8."""
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
    """What a key says about a manifest."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SignatureFile:
    """A manifest and the signatures over it, neither of them believed yet."""

    manifest: Manifest
    signatures: tuple[Signature, ...]

    def render(self) -> str:
        """Return the content of the file."""
        keys = (f"key {s.key_id} {base64.b64encode(s.value).decode()}\n" for s in self.signatures)
        return self.manifest.render() + "\n" + "".join(keys)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return what a signature file says.

        Raises:
            MalformedSignatureError: it is none, or is written otherwise than this program writes it.
        """
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise MalformedSignatureError("not UTF-8") from None
        head, empty, tail = text.partition("\n\n")
        if not empty:
            raise MalformedSignatureError("there is no signature behind an empty line")
        found = cls(_parse_manifest(head.split("\n")), tuple(_parse_keys(tail.splitlines())))
        if found.render() != text:
            raise MalformedSignatureError("it is not written as `sgagent sign` writes it")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """By what a delivery is vouched for."""

    serial: int
    digest: str
    """Of the manifest: two publications of one serial differ in it."""

    key_id: str
    expires_at: int | None


def sha256_of(content: bytes) -> str:
    """Return the hash by which a manifest knows a document."""
    return hashlib.sha256(content).hexdigest()


def time_in_words(seconds: int) -> str:
    """Return a time as signature files write it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime(_TIME)


def _parse_manifest(lines: list[str]) -> Manifest:
    """Return what the lines before the empty one say."""
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
        raise MalformedSignatureError("its files are not there, not in order, or twice")
    return Manifest(serial=int(serial[1]), signed_at=signed_at, expires_at=expires_at, files=files)


def _parse_time(word: str, line: str) -> int:
    try:
        parsed = dt.datetime.strptime(line, f"{word} {_TIME}").replace(tzinfo=dt.UTC)
    except ValueError:
        raise MalformedSignatureError(f"there is no time where {word!r} should stand") from None
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
            raise MalformedSignatureError("a line behind the empty one is no signature")
        try:
            yield Signature(key_id=match[1], value=base64.b64decode(match[2], validate=True))
        except (binascii.Error, ValueError):
            raise MalformedSignatureError("a signature is not base64") from None
