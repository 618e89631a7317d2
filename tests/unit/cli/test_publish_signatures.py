"""Who vouches for what is published to etcd."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sgagent.cli.keygen import load_key
from sgagent.cli.main import main
from sgagent.cli.publish import Signer, add_arguments, beside_published
from sgagent.core.errors import UsageError
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.publication import Published, signature_keys

LAYOUT = KeyLayout("/sgagent")
CONTENTS = {LAYOUT.key("groups", "sg-web"): b"{}"}


@pytest.fixture
def key(tmp_path: Path) -> str:
    """Make a key, and give its file."""
    return made(tmp_path / "policy.key")


def made(path: Path) -> str:
    """Make a key."""
    assert main(["keygen", "--out", str(path)]) == 0
    return str(path)


def published(signer: Signer | None = None) -> Published:
    """Return a store, signed or empty."""
    keys = {} if signer is None else signature_keys(CONTENTS, LAYOUT, 7, signer.sign)
    items = tuple(KeyValue(key=name, value=value, mod_revision=3) for name, value in keys.items())
    return Published(marker=None, marker_revision=3, revision=3, items=items)


def signer_of(*arguments: str, store: Published | None = None) -> Signer | None:
    """Return who vouches with these options."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["groups.d", *arguments])
    signer = Signer.of(options)
    return beside_published(signer, store or published(), LAYOUT, is_unsigned=options.unsigned)


def is_signed_anew(before: Signer, after: Signer) -> bool:
    """Tell whether the second would write another signature than the first left."""
    first = signature_keys(CONTENTS, LAYOUT, 7, before.sign)
    return signature_keys(CONTENTS, LAYOUT, 8, after.sign) != first


def test_nobody_vouches_unless_told_to() -> None:
    """Then nothing is signed."""
    assert signer_of() is None


def test_a_signature_is_not_lost_by_mistake(key: str) -> None:
    """Who means it says so."""
    signed = published(signer_of("--key", key))
    with pytest.raises(UsageError, match="what is published is signed"):
        signer_of(store=signed)
    assert signer_of("--unsigned", store=signed) is None


def test_what_says_the_same_is_not_signed_again(key: str, tmp_path: Path) -> None:
    """By the same keys, for ever; another key or an end of its time is something else."""
    first = signer_of("--key", key)
    assert first is not None
    other = made(tmp_path / "other.key")
    for arguments, is_new in (
        (("--key", key), False),
        (("--key", other), True),
        (("--key", key, "--key", other), True),
        (("--key", key, "--expires", "30d"), True),
    ):
        again = signer_of(*arguments, store=published(first))
        assert again is not None
        assert is_signed_anew(first, again) is is_new, arguments


def test_what_stands_there_and_is_none_is_replaced(key: str) -> None:
    """Whatever somebody wrote."""
    broken = KeyValue(key=LAYOUT.key("signature", "0000"), value=b"nonsense", mod_revision=3)
    signer = signer_of(
        "--key", key, store=Published(marker=None, marker_revision=3, revision=3, items=(broken,))
    )
    assert signer is not None
    assert signer.published is None


def test_who_vouches_is_told(key: str) -> None:
    """By the short name of the key, and until when."""
    signer = signer_of("--key", key, "--expires", "1h")
    assert signer is not None
    assert signer.key_ids == [load_key(Path(key)).public.key_id]
    assert signer.summary.startswith(f"signed by {signer.key_ids[0]}, good until ")
    assert signer.expires_at == signer.signed_at + 3600


@pytest.mark.parametrize(
    ("arguments", "told"),
    (
        (("--expires", "1h"), "needs --key"),
        (("--unsigned", "--key", "x"), "does not go with --key"),
        (("--key", "/nowhere/policy.key"), "/nowhere/policy.key"),
    ),
)
def test_senseless_options(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are wrong use, before the documents are read and the store is asked."""
    assert main(["publish", "/nowhere/documents", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_nothing_can_not_be_signed(key: str) -> None:
    """A signature that lists no key would vouch for a store that lost all of them."""
    signer = signer_of("--key", key)
    assert signer is not None
    with pytest.raises(UsageError, match="can't be signed"):
        signer.sign({}, 1)
