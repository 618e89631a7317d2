"""Who vouches for what, and until when."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from sgagent.signatures import (
    MOST_SIGNATURES,
    MalformedSignatureError,
    Manifest,
    PrivateKey,
    PublicKey,
    SignatureFaultError,
    SignatureFile,
    Signed,
    check_age,
    check_contents,
    check_part,
    check_signature,
)
from tests.signing import KEY, NOW, OTHER_KEY, signature_of

CONTENTS = {"b.yaml": b"version: 1\n", "a b.json": b"{}", "c.yaml": b""}
PINNED = (KEY.public,)


def fault(content: bytes, *keys: PublicKey) -> SignatureFaultError:
    """Return why a signature file is refused."""
    with pytest.raises(SignatureFaultError) as caught:
        check_signature(content, keys or PINNED)
    return caught.value


def verified(**terms: int) -> tuple[Manifest, Signed]:
    """Return a manifest that is vouched for."""
    return check_signature(signature_of(CONTENTS, **terms), PINNED)


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(
    contents=st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=5),
    serial=st.integers(1, 10**18 - 1),
    signed_at=st.integers(10**9, 2 * 10**9),
    expires_at=st.none() | st.integers(10**9, 2 * 10**9),
)
def test_what_was_signed_is_vouched_for(
    contents: dict[str, bytes], serial: int, signed_at: int, expires_at: int | None
) -> None:
    """Whatever the documents are called, and whatever is in them."""
    content = signature_of(contents, serial=serial, signed_at=signed_at, expires_at=expires_at)
    manifest, signed = check_signature(content, PINNED)
    assert (manifest.serial, manifest.signed_at, manifest.expires_at) == (serial, signed_at, expires_at)
    assert (signed.serial, signed.key_id, signed.expires_at) == (serial, KEY.public.key_id, expires_at)
    check_contents(manifest, contents)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_no_byte_can_be_changed(place: int, byte: int) -> None:
    """A signature file that differs anywhere is refused, or says the very same."""
    original = signature_of(CONTENTS, expires_at=NOW + 60)
    changed = bytearray(original)
    changed[place % len(original)] = byte
    if bytes(changed) != original:
        assert fault(bytes(changed)).code.startswith("signature_")


@given(content=st.binary(max_size=200))
def test_no_other_bytes_pass_for_a_signature_file(content: bytes) -> None:
    """They are malformed."""
    assert fault(content).code == "signature_malformed"


def test_any_pinned_key_does() -> None:
    """So that keys can be changed: both are pinned, or both sign."""
    pinned = (OTHER_KEY.public, KEY.public)
    assert check_signature(signature_of(CONTENTS), pinned)[1].key_id == KEY.public.key_id
    both = signature_of(CONTENTS, OTHER_KEY, KEY)
    assert check_signature(both, PINNED)[1].key_id == KEY.public.key_id


def test_a_key_that_is_not_pinned() -> None:
    """Its name is told, and those of the keys that would do."""
    refused = fault(signature_of(CONTENTS, OTHER_KEY))
    assert refused.code == "signature_unknown_key"
    assert OTHER_KEY.public.key_id in refused.message
    assert KEY.public.key_id in refused.remedy


def test_a_signature_file_without_signatures() -> None:
    """It is said so."""
    manifest = Manifest.of(CONTENTS, serial=1, signed_at=NOW)
    refused = fault(SignatureFile(manifest, ()).render().encode())
    assert refused.message == "not signed by any key"


def test_a_signature_under_another_manifest() -> None:
    """It is no signature of that."""
    one = SignatureFile.parse(signature_of(CONTENTS, serial=1))
    other = SignatureFile.parse(signature_of(CONTENTS, serial=2))
    mixed = SignatureFile(other.manifest, one.signatures).render().encode()
    assert fault(mixed).code == "signature_wrong"


@pytest.mark.parametrize(
    ("keys", "why"),
    (
        ((OTHER_KEY, KEY, OTHER_KEY), "a key signed twice"),
        (tuple(PrivateKey.generate() for _ in range(MOST_SIGNATURES + 1)), "more than 16 lines"),
    ),
    ids=("twice", "many"),
)
def test_no_file_makes_a_host_verify_for_long(keys: tuple[PrivateKey, ...], why: str) -> None:
    """Each key signs once, and not more keys than anybody needs."""
    refused = fault(signature_of(CONTENTS, *keys))
    assert refused.code == "signature_malformed"
    assert why in refused.message


def test_a_file_may_have_as_many_signatures_as_is_said() -> None:
    """Any of them may be that of the pinned key."""
    others = (PrivateKey.generate() for _ in range(MOST_SIGNATURES - 1))
    assert check_signature(signature_of(CONTENTS, *others, KEY), PINNED)[1].key_id == KEY.public.key_id


def test_a_key_that_goes_by_anothers_name() -> None:
    """The name is no proof."""
    file = SignatureFile.parse(signature_of(CONTENTS, OTHER_KEY))
    renamed = replace(file.signatures[0], key_id=KEY.public.key_id)
    assert fault(SignatureFile(file.manifest, (renamed,)).render().encode()).code == "signature_wrong"


@pytest.mark.parametrize(
    ("old", "new"),
    (
        ("sgagent signature 1", "sgagent signature 2"),
        ("serial 1\n", "serial 01\n"),
        ("serial 1\n", "serial 0\n"),
        ("serial 1\n", ""),
        ("signed ", "signed  "),
        ("\n\n", "\n"),
        ("\n\n", "\n\n\n"),
        ("file ", "File "),
        ("a b.json", "z b.json"),
        ("b.yaml", "a b.json"),
        ("key ", "KEY "),
    ),
)
def test_there_is_one_way_to_write_it(old: str, new: str) -> None:
    """Nothing can be read in two ways, as what is written otherwise is not read."""
    text = signature_of(CONTENTS).decode()
    assert old in text
    with pytest.raises(MalformedSignatureError):
        SignatureFile.parse(text.replace(old, new, 1).encode())


@pytest.mark.parametrize("name", ("", "a\nb", "a\x1b[2J", "x" * 513))
def test_names_that_can_not_be_signed(name: str) -> None:
    """They would not stay on their line."""
    with pytest.raises(ValueError, match="can't be signed"):
        Manifest.of({name: b""}, serial=1, signed_at=NOW)


@pytest.mark.parametrize(
    ("contents", "name"),
    (
        ({**CONTENTS, "b.yaml": b"version: 2\n"}, "b.yaml"),
        ({**CONTENTS, "d.yaml": b""}, "d.yaml"),
        ({"b.yaml": b"version: 1\n", "c.yaml": b""}, "a b.json"),
        ({"a b.json": b"version: 1\n", "b.yaml": b"{}", "c.yaml": b""}, "a b.json"),
    ),
)
def test_documents_that_are_not_those_that_were_signed(contents: dict[str, bytes], name: str) -> None:
    """Changed, more, fewer, or with each other's names."""
    with pytest.raises(SignatureFaultError) as caught:
        check_contents(verified()[0], contents)
    assert (caught.value.code, caught.value.name) == ("signature_mismatch", name)


@pytest.mark.parametrize("contents", ({"c.yaml": b"x"}, {}, {"c.yaml": b"", "d.yaml": b""}))
def test_a_part_is_held_against_a_manifest(contents: dict[str, bytes]) -> None:
    """Where a source reads only what concerns this host: changed, fewer or more are refused all the same."""
    asked = {"c.yaml", "d.yaml"}.__contains__
    check_part(verified()[0], {"c.yaml": b""}, asked)
    with pytest.raises(SignatureFaultError) as caught:
        check_part(verified()[0], contents, asked)
    assert caught.value.code == "signature_mismatch"


def test_a_single_document_may_have_any_name() -> None:
    """A copy under another name is the same document."""
    manifest, _ = check_signature(signature_of({"web.yaml": b"x"}), PINNED)
    check_contents(manifest, {"policy": b"x"})
    with pytest.raises(SignatureFaultError):
        check_contents(manifest, {"web.yaml": b"y"})


def test_what_expires_is_good_until_that_second() -> None:
    """And not from then on."""
    _, signed = verified(expires_at=NOW + 60)
    check_age(signed, now=NOW + 59.9, enforced=None)
    with pytest.raises(SignatureFaultError) as caught:
        check_age(signed, now=NOW + 60, enforced=None)
    assert caught.value.code == "signature_expired"


@pytest.mark.parametrize(("serial", "code"), ((6, "serial_older"), (7, None), (8, None), (10**17, None)))
def test_serials(serial: int, code: str | None) -> None:
    """What is older than what was enforced is refused; the same and newer ones are not."""
    _, enforced = verified(serial=7)
    _, signed = verified(serial=serial)
    if code is None:
        check_age(signed, now=NOW, enforced=enforced)
    else:
        with pytest.raises(SignatureFaultError) as caught:
            check_age(signed, now=NOW, enforced=enforced)
        assert caught.value.code == code


def test_a_serial_is_one_publications() -> None:
    """Another one under the same serial is refused."""
    _, enforced = verified(serial=7)
    _, signed = verified(serial=7, expires_at=NOW + 60)
    with pytest.raises(SignatureFaultError) as caught:
        check_age(signed, now=NOW, enforced=enforced)
    assert caught.value.code == "serial_reused"


def test_keys_are_written_as_they_are_read() -> None:
    """Public ones as the configuration holds them, private ones as PEM."""
    assert PublicKey.parse(str(KEY.public)) == KEY.public
    assert PrivateKey.load(KEY.dump()).public == KEY.public
    assert OTHER_KEY.public.key_id != KEY.public.key_id


@pytest.mark.parametrize(
    "text", ("", "ed25519:", "ed25519:AAAA", "ed25519:" + "A" * 43, "rsa:AAAA", "ed25519:é")
)
def test_what_is_no_public_key(text: str) -> None:
    """It is refused without being repeated."""
    with pytest.raises(ValueError, match="not a public key"):
        PublicKey.parse(text)


@pytest.mark.parametrize("arguments", ((), ("-aes256", "-pass", "pass:x"), None, "rsa"))
def test_keys_of_another_program(arguments: tuple[str, ...] | str | None, tmp_path: Path) -> None:
    """An Ed25519 key that openssl made does; other kinds, locked ones and none at all are refused."""
    path = tmp_path / "key.pem"
    if arguments is None:
        path.write_text("nothing")
    else:
        kind, more = ("rsa", ()) if isinstance(arguments, str) else ("ed25519", arguments)
        command = ("openssl", "genpkey", "-algorithm", kind, *more, "-out", str(path))
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - the arguments are our own
    if arguments == ():
        manifest = verified()[0]
        key = PrivateKey.load(path.read_bytes())
        file = SignatureFile(manifest, (key.sign(manifest),)).render().encode()
        assert check_signature(file, (key.public,))[0] == manifest
    else:
        with pytest.raises(ValueError, match=r"private key|password|Ed25519"):
            PrivateKey.load(path.read_bytes())
