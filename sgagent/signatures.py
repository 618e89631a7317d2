"""Keys, signature files and their verification; the keys are Ed25519 (RFC 8032).

A signature file holds a manifest, which lists documents by their hashes, and signatures over the manifest. It
is text, so that a person can read what was signed and a version control system shows changes::

    sgagent signature 1
    serial 7
    signed 2026-11-25T04:00:00Z
    expires 2026-12-25T04:00:00Z
    file 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 web.yaml

    key 5f3c9a0b1c2d3e4f c2lnbmF0dXJl…

The signatures cover the bytes before the empty line. The parser accepts only the canonical text of a
manifest, so that no two readers can understand a file differently.

Verification checks the key, then the documents, then the age, because each check depends on the one before.
Each raises an error with a code for scripts.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sgagent.json_model import checksum

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FIRST_LINE = "sgagent signature 1"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_FILE = re.compile(r"file ([0-9a-f]{64}) (.{1,512})")
_SERIAL = re.compile(r"serial ([1-9][0-9]{0,17})")
_KEY = re.compile(r"key ([0-9a-f]{16}) ([A-Za-z0-9+/=]{1,128})")
MOST_SIGNATURES = 16
"""In one file: each costs a reader one verification of the whole manifest."""


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
        files = tuple(SignedFile(name, checksum(contents[name])) for name in sorted(contents))
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
        found = cls(_parse_manifest(head.split("\n")), _parse_keys(tail.splitlines()))
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


def _parse_keys(lines: list[str]) -> tuple[Signature, ...]:
    """Parse the lines after the empty line; at most one signature of each key."""
    if len(lines) > MOST_SIGNATURES:
        raise MalformedSignatureError(f"more than {MOST_SIGNATURES} lines follow the empty line")
    found = tuple(map(_parse_key, lines))
    if len({signature.key_id for signature in found}) < len(found):
        raise MalformedSignatureError("a key signed twice")
    return found


def _parse_key(line: str) -> Signature:
    match = _KEY.fullmatch(line)
    if match is None:
        raise MalformedSignatureError("a line after the empty line is not a signature")
    try:
        return Signature(key_id=match[1], value=base64.b64decode(match[2], validate=True))
    except (binascii.Error, ValueError):
        raise MalformedSignatureError("a signature is not base64") from None


_PREFIX = "ed25519:"
KEY_FORM = "ed25519: and 44 characters of base64, as `sgagent keygen` prints it"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key (RFC 8032)."""

    raw: bytes
    """32 bytes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text like ``ed25519:MCowBQ…=``.

        Raises:
            ValueError: it is not a public key; the message omits the text, because it may be a secret.
        """
        if not text.startswith(_PREFIX):
            raise ValueError("not a public key")
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("not a public key") from None
        if len(raw) != 32:
            raise ValueError("not a public key of 32 bytes")
        return cls(raw)

    @property
    def key_id(self) -> str:
        """Return the short id by which signatures name the key; it proves nothing."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        """Return the key as the configuration has it."""
        return _PREFIX + base64.b64encode(self.raw).decode()


def is_by(key: PublicKey, manifest: bytes, signature: Signature) -> bool:
    """Return whether the key's owner signed the bytes of a rendered manifest."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 15 ms, for hosts that pin no key
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key.raw).verify(signature.value, manifest)
    except InvalidSignature:
        return False
    return True


class SignatureFaultError(Exception):
    """A failed check of a signature."""

    def __init__(self, code: str, message: str, remedy: str, *, name: str | None = None) -> None:
        """Store the fields of a problem; ``name`` is the document at fault, None for the signature itself."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.name = name


def check_signature(content: bytes, keys: Collection[PublicKey]) -> tuple[Manifest, Signed]:
    """Return the manifest of a signature file after verifying that one of the keys signed it.

    Raises:
        SignatureFaultError: ``signature_malformed``, ``signature_unknown_key`` or ``signature_wrong``.
    """
    try:
        file = SignatureFile.parse(content)
    except MalformedSignatureError as error:
        message, remedy = f"not a signature file: {error}", "write it with `sgagent sign`"
        raise SignatureFaultError("signature_malformed", message, remedy) from error
    by_id = {key.key_id: key for key in keys}
    known = [signature for signature in file.signatures if signature.key_id in by_id]
    if not known:
        by = ", ".join(signature.key_id for signature in file.signatures)
        remedy = f"sign with one of {', '.join(sorted(by_id))}, or pin the key in signature.public_keys"
        message = f"signed by {by}, none of which is pinned" if by else "not signed by any key"
        raise SignatureFaultError("signature_unknown_key", message, remedy)
    rendered = file.manifest.render().encode()
    for signature in known:
        if is_by(by_id[signature.key_id], rendered, signature):
            serial, expires_at = file.manifest.serial, file.manifest.expires_at
            signed = Signed(
                serial=serial, digest=checksum(rendered), key_id=signature.key_id, expires_at=expires_at
            )
            return file.manifest, signed
    raise SignatureFaultError(
        "signature_wrong",
        f"the signature of {known[0].key_id} does not match the signed text",
        "the text was changed after signing; sign again",
    )


def check_contents(manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Compare documents with a manifest.

    If both have exactly one document, its name does not matter.

    Args:
        manifest: the signed list.
        contents: the documents by name.

    Raises:
        SignatureFaultError: ``signature_mismatch``, with the first document that is unsigned, changed or
            missing.
    """
    hashes = {file.name: file.sha256 for file in manifest.files}
    if len(hashes) == len(contents) == 1:
        hashes = dict(zip(contents, hashes.values(), strict=True))
    _compare(hashes, contents)


def check_part(
    manifest: Manifest, contents: Mapping[str, bytes], is_asked_for: Callable[[str], bool]
) -> None:
    """Compare a subset of documents with a manifest.

    Args:
        manifest: the signed list.
        contents: the documents of the subset by name.
        is_asked_for: returns whether a name belongs to the subset, so that its document must be present.

    Raises:
        SignatureFaultError: as for :func:`check_contents`.
    """
    _compare({file.name: file.sha256 for file in manifest.files if is_asked_for(file.name)}, contents)


def _compare(hashes: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
    """Refuse the first document that is unsigned, changed or missing."""
    for name, content in sorted(contents.items()):
        if name not in hashes:
            raise _mismatch(name, "the document is not in the signed list")
        if hashes[name] != checksum(content):
            raise _mismatch(name, "the document differs from the one that was signed")
    missing = sorted(hashes.keys() - contents.keys())
    if missing:
        raise _mismatch(missing[0], "a signed document is missing")


def check_age(signed: Signed, *, now: float, enforced: Signed | None) -> None:
    """Refuse an expired signature, and one older than the last that this host enforced.

    Args:
        signed: the verified signature.
        now: seconds since the epoch.
        enforced: the newest signature that this host enforced; None for none.

    Raises:
        SignatureFaultError: ``signature_expired``, ``serial_older`` or ``serial_reused``.
    """
    if signed.expires_at is not None and now >= signed.expires_at:
        remedy = "sign again; if it should still be valid, check this host's clock"
        message = f"expired at {time_in_words(signed.expires_at)}"
        raise SignatureFaultError("signature_expired", message, remedy)
    if enforced is None:
        return
    remedy = f"sign with a serial above {enforced.serial}"
    if signed.serial < enforced.serial:
        message = f"serial {signed.serial} is older than {enforced.serial}, which this host enforced"
        remedy += "; `sgagent rollback` goes back on purpose"
        raise SignatureFaultError("serial_older", message, remedy)
    if signed.serial == enforced.serial and signed.digest != enforced.digest:
        message = f"serial {signed.serial} belongs to another publication, which this host enforced"
        raise SignatureFaultError("serial_reused", message, remedy)


def _mismatch(name: str, message: str) -> SignatureFaultError:
    remedy = "restore the signed documents, or sign the present ones"
    return SignatureFaultError("signature_mismatch", message, remedy, name=name)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An Ed25519 private key."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as for checks

        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, pem: bytes) -> Self:
        """Parse a PEM file: PKCS #8, without a password.

        Raises:
            ValueError: it has no private key, a key of another type, or a password.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as for checks
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as for checks
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as for checks

        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the key has a password; expected one without") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("not a private key in PEM") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what is wrong is the file, not the program
        return cls(key)

    def dump(self) -> bytes:
        """Return the key as PEM."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as for checks

        form = serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    @property
    def public(self) -> PublicKey:
        """Return the public key, which hosts pin."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, manifest: Manifest) -> Signature:
        """Sign a manifest."""
        return Signature(key_id=self.public.key_id, value=self._key.sign(manifest.render().encode()))
