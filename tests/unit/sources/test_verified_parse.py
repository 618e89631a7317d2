"""What becomes of documents that a source got, signed or not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sgagent.core.errors import DocumentError, Severity
from sgagent.documents import DocumentFile, Limits
from sgagent.settings import SignatureSettings
from sgagent.signatures import Signed
from sgagent.sources.files.source import FileSource
from sgagent.sources.verified_parse import (
    MismatchError,
    SignaturePolicy,
    VerifiedParser,
    encode_signature,
    read_signature,
)
from tests.fakes.clock import FakeClock
from tests.patience import PATIENCE
from tests.signing import KEY, NOW, OTHER_KEY, signature_of

WEB = b"version: 1\nsecurity_groups: [{security_group_id: sg-web, type: basic}]\n"
APP = WEB.replace(b"sg-web", b"sg-app")
DOCUMENTS = (DocumentFile("/etc/groups.d/web.yaml", WEB),)
PINNED = SignatureSettings(public_keys=(KEY.public,))
WITHIN_SECONDS = 2.0 * PATIENCE


@dataclass
class Desk:
    """A parser with the host's memory and clock in a test's hands."""

    settings: SignatureSettings = PINNED
    enforced: Signed | None = None
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    parser: VerifiedParser = field(init=False)

    def __post_init__(self) -> None:
        """Put it together."""
        signature_policy = SignaturePolicy(
            self.settings, read_enforced=lambda: self.enforced, now=self.clock.now
        )
        self.parser = VerifiedParser(Limits(), signature_policy)

    def refusal(self, signature: bytes | None, documents: tuple[DocumentFile, ...] = DOCUMENTS) -> str:
        """Return the one problem for which documents are refused."""
        with pytest.raises(DocumentError) as caught:
            self.parser.take(documents, signature, "/etc/groups.d/sgagent.sig")
        (problem,) = caught.value.problems
        return f"{problem.code} {problem.origin.file}"


def signed(content: bytes = WEB, serial: int = 1, expires_at: int | None = None) -> bytes:
    """Return a signature of the one document."""
    return signature_of({"web.yaml": content}, serial=serial, expires_at=expires_at)


def test_what_is_signed_is_taken_with_the_name_of_who_signed() -> None:
    """And nothing is done twice."""
    desk = Desk()
    delivery = desk.parser.take(DOCUMENTS, signed(serial=7), "sig")
    assert delivery.signed is not None
    assert (delivery.signed.serial, delivery.signed.key_id) == (7, KEY.public.key_id)
    assert desk.parser.take(DOCUMENTS, signed(serial=7), "sig") is delivery


def test_who_asks_for_no_signature_looks_at_none() -> None:
    """A wrong one does no harm."""
    parser = VerifiedParser(Limits())
    assert not parser.wants_signature
    assert parser.take(DOCUMENTS, b"nonsense", "sig").signed is None


def test_a_missing_signature() -> None:
    """It is an error, or a warning where it is not required."""
    assert Desk().refusal(None) == "signature_missing /etc/groups.d/sgagent.sig"
    desk = Desk(SignatureSettings(public_keys=(KEY.public,), required=False))
    (problem,) = desk.parser.take(DOCUMENTS, None, "sig").problems
    assert (problem.code, problem.severity) == ("signature_missing", Severity.WARNING)
    assert desk.refusal(b"nonsense").startswith("signature_malformed")


def test_a_changed_document_is_named() -> None:
    """And told from other faults, as signature and documents may not have been read at one moment."""
    changed = (DocumentFile("/etc/groups.d/web.yaml", APP),)
    assert Desk().refusal(signed(), changed) == "signature_mismatch /etc/groups.d/web.yaml"
    with pytest.raises(MismatchError):
        Desk().parser.take(changed, signed(), "sig")


def test_broken_documents_are_not_read_before_somebody_vouches_for_them() -> None:
    """What nobody signed is not parsed."""
    broken = (DocumentFile("web.yaml", b"nonsense: true\n"),)
    assert (
        Desk()
        .refusal(signature_of({"web.yaml": broken[0].content}, OTHER_KEY), broken)
        .startswith("signature_unknown_key")
    )
    with pytest.raises(DocumentError) as caught:
        Desk().parser.take(broken, signed(broken[0].content), "sig")
    assert {problem.code for problem in caught.value.problems} == {"unknown_field", "missing_field"}


def test_what_expires_while_it_is_delivered_is_refused_from_then_on() -> None:
    """Though nothing was delivered anew."""
    desk = Desk()
    signature = signed(expires_at=NOW + 60)
    desk.parser.take(DOCUMENTS, signature, "sig")
    desk.clock.pass_seconds(60)
    assert desk.refusal(signature).startswith("signature_expired")


def test_a_roll_back_is_refused() -> None:
    """What was enforced counts, not what was only delivered."""
    desk = Desk()
    newer = desk.parser.take(DOCUMENTS, signed(serial=8), "sig")
    desk.parser.take(DOCUMENTS, signed(serial=7), "sig")
    desk.enforced = newer.signed
    assert desk.refusal(signed(serial=7)).startswith("serial_older")
    desk.parser.take(DOCUMENTS, signed(serial=8), "sig")
    assert desk.refusal(signed(APP, serial=8), (DocumentFile("web.yaml", APP),)).startswith("serial_reused")


def test_signed_anew_is_another_delivery_of_the_same_snapshot() -> None:
    """So the newer serial is kept, and nothing is parsed or enforced anew."""
    desk = Desk()
    before = desk.parser.take(DOCUMENTS, signed(serial=1), "sig")
    after = desk.parser.take(DOCUMENTS, signed(serial=2), "sig")
    assert after is not before
    assert after.snapshot is before.snapshot


def test_what_is_kept_of_a_signature_is_read_back(tmp_path: Path) -> None:
    """Before anything was kept there is none."""
    path = tmp_path / "signature.json"
    assert read_signature(path) is None
    kept = Signed(serial=7, digest="ab", key_id="cd", expires_at=None)
    path.write_bytes(encode_signature(kept))
    assert read_signature(path) == kept


@pytest.mark.parametrize("content", ("", "[]", "{}", '{"format": 2}', '{"format": 1, "serial": "x"}'))
def test_a_damaged_memory_refuses_everything_signed(content: str, tmp_path: Path) -> None:
    """Without it, anything ever signed would be taken."""
    path = tmp_path / "signature.json"
    path.write_text(content)
    parser = VerifiedParser(
        Limits(), SignaturePolicy(PINNED, read_enforced=lambda: read_signature(path), now=lambda: NOW)
    )
    with pytest.raises(DocumentError) as caught:
        parser.take(DOCUMENTS, signed(), "sig")
    assert caught.value.problems[0].code == "serial_unknown"
    assert str(path) in caught.value.problems[0].message


@pytest.mark.parametrize("is_directory", (True, False))
def test_a_file_source_looks_for_the_signature_beside_the_documents(
    is_directory: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    """Of a directory as one file in it, of a document under its name; a new signature wakes who watches."""
    document = tmp_path / "groups.d" / "web.yaml"
    document.parent.mkdir()
    document.write_bytes(WEB)
    path = document.parent if is_directory else document
    signature = path / "sgagent.sig" if is_directory else path.with_name("web.yaml.sig")
    source = FileSource(path, Limits(), VerifiedParser(Limits(), SignaturePolicy(PINNED, now=lambda: NOW)))
    woken = threading.Event()
    with source.watch(woken.set):
        with pytest.raises(DocumentError, match="there is no signature"):
            source.fetch()
        for serial in (1, 2):
            woken.clear()
            draft = tmp_path / "draft"
            draft.write_bytes(signed(serial=serial))
            draft.replace(signature)  # as the command signs: a file that is half written is a wrong signature
            assert woken.wait(WITHIN_SECONDS)
            delivery = source.fetch()
            assert delivery.signed is not None
            assert delivery.signed.serial == serial
        woken.clear()
        signature.unlink()
        assert woken.wait(WITHIN_SECONDS)
        with pytest.raises(DocumentError, match="there is no signature"):
            source.fetch()
