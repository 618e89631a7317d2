"""Keep the last good definitions over restarts and reboots (§9.2).

What is kept are the documents as they were delivered; reading them again is the same code as ever. Each file
is written anew, made durable and then renamed into place, so that a crash at any point leaves the old one or
the new one. A file that does not hold what its checksum says is put aside and the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.host import ExpectedLink
from sgagent.documents import DocumentFile

_FORMAT = 2
_READABLE_FORMATS = (1, _FORMAT)
"""The first lacks the links."""

_NEWEST = "last-good.json"
_BEFORE = "last-good.previous.json"
_CONFIGURATION = "last-good.toml"


class DamagedStateError(Exception):
    """A kept file does not hold what it should; its name and the reason are the message."""


@dataclass(frozen=True, slots=True)
class KeptDocuments:
    """What was enforced last."""

    version: str
    documents: tuple[DocumentFile, ...]
    links: tuple[ExpectedLink, ...] = ()
    """Where network interfaces were found, so that they are judged by name before they can be found again."""


class StateDirectory:
    """The directory that outlives the agent."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made when something is kept."""
        self._directory = directory

    def has_enforced(self) -> bool:
        """Tell whether this host ever enforced a snapshot: if anything was kept, readable or not."""
        return any((self._directory / name).exists() for name in (_NEWEST, _BEFORE))

    def keep(self, kept: KeptDocuments) -> None:
        """Keep these documents; those of another version kept before become the ones to fall back on.

        Raises:
            OSError: nothing was changed.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        newest = self._directory / _NEWEST
        if newest.exists():
            content = newest.read_bytes()
            if _version(content) not in (None, kept.version):
                write_durably(self._directory / _BEFORE, content)
        write_durably(newest, _encode(kept))

    def keep_configuration(self, text: str) -> None:
        """Keep the configuration that an agent started with, should it be broken at the next boot.

        Raises:
            OSError: nothing was changed.
        """
        if text != self.configuration():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._directory / _CONFIGURATION, text.encode())

    def configuration(self) -> str | None:
        """Return the configuration that was kept; None where there is none that can be read."""
        try:
            return (self._directory / _CONFIGURATION).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def load(self) -> tuple[KeptDocuments | None, tuple[str, ...]]:
        """Return the newest documents that can be read, and what was wrong with those that can't."""
        faults: list[str] = []
        for name in (_NEWEST, _BEFORE):
            path = self._directory / name
            try:
                return _decode(path.read_bytes(), path), tuple(faults)
            except FileNotFoundError:
                continue
            except (OSError, DamagedStateError) as error:
                faults.append(str(error))
        return None, tuple(faults)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file by new content, all of it or nothing, safe from a power cut."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _encode(kept: KeptDocuments) -> bytes:
    body = {
        "version": kept.version,
        "documents": [{"name": file.name, "content": file.content.decode()} for file in kept.documents],
        "links": [
            {"interface": link.interface, "network_interface_id": link.network_interface_id}
            for link in kept.links
        ],
    }
    text = json.dumps(body)  # in ASCII, as a file's name need not be text
    return json.dumps({"format": _FORMAT, "sha256": _checksum(text), "body": text}).encode()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(content: bytes) -> str | None:
    """Return the version of the documents in a file; None where it is damaged."""
    try:
        return _decode(content, Path()).version
    except DamagedStateError:
        return None


def _decode(content: bytes, path: Path) -> KeptDocuments:
    try:
        outer = json.loads(content)
        if outer["format"] not in _READABLE_FORMATS or outer["sha256"] != _checksum(outer["body"]):
            raise DamagedStateError(f"{path}: the checksum or format does not agree")
        body = json.loads(outer["body"])
        documents = tuple(
            DocumentFile(name=file["name"], content=file["content"].encode()) for file in body["documents"]
        )
        links = tuple(
            ExpectedLink(interface=link["interface"], network_interface_id=link["network_interface_id"])
            for link in body.get("links", ())
        )
        return KeptDocuments(version=body["version"], documents=documents, links=links)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedStateError(f"{path}: not a file of kept documents: {error}") from error
