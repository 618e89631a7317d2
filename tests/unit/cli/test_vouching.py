"""Who vouches for what is published to etcd."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sgagent.cli.keygen import load_key
from sgagent.cli.main import main
from sgagent.cli.publish import SigningOptions, Voucher, add_arguments
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


def published(voucher: Voucher | None = None) -> Published:
    """Return a store, signed or empty."""
    keys = {} if voucher is None else signature_keys(CONTENTS, LAYOUT, 7, voucher.sign)
    items = tuple(KeyValue(key=name, value=value, mod_revision=3) for name, value in keys.items())
    return Published(marker=None, marker_revision=3, revision=3, items=items)


def voucher_of(*arguments: str, store: Published | None = None) -> Voucher | None:
    """Return who vouches with these options."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return SigningOptions.of(parser.parse_args(["groups.d", *arguments])).voucher(
        store or published(), LAYOUT
    )


def is_signed_anew(before: Voucher, after: Voucher) -> bool:
    """Tell whether the second would write another signature than the first left."""
    first = signature_keys(CONTENTS, LAYOUT, 7, before.sign)
    return signature_keys(CONTENTS, LAYOUT, 8, after.sign) != first


def test_nobody_vouches_unless_told_to() -> None:
    """Then nothing is signed."""
    assert voucher_of() is None


def test_a_signature_is_not_lost_by_mistake(key: str) -> None:
    """Who means it says so."""
    signed = published(voucher_of("--key", key))
    with pytest.raises(UsageError, match="what is published is signed"):
        voucher_of(store=signed)
    assert voucher_of("--unsigned", store=signed) is None


def test_what_says_the_same_is_not_signed_again(key: str, tmp_path: Path) -> None:
    """By the same keys, for ever; another key or an end of its time is something else."""
    first = voucher_of("--key", key)
    assert first is not None
    other = made(tmp_path / "other.key")
    for arguments, is_new in (
        (("--key", key), False),
        (("--key", other), True),
        (("--key", key, "--key", other), True),
        (("--key", key, "--expires", "30d"), True),
    ):
        again = voucher_of(*arguments, store=published(first))
        assert again is not None
        assert is_signed_anew(first, again) is is_new, arguments


def test_what_stands_there_and_is_none_is_replaced(key: str) -> None:
    """Whatever somebody wrote."""
    broken = KeyValue(key=LAYOUT.key("signature", "0000"), value=b"nonsense", mod_revision=3)
    voucher = voucher_of(
        "--key", key, store=Published(marker=None, marker_revision=3, revision=3, items=(broken,))
    )
    assert voucher is not None
    assert voucher.standing is None


def test_who_vouches_is_told(key: str) -> None:
    """By the short name of the key, and until when."""
    voucher = voucher_of("--key", key, "--expires", "1h")
    assert voucher is not None
    assert voucher.key_ids == [load_key(Path(key)).public.key_id]
    assert voucher.summary.startswith(f"signed by {voucher.key_ids[0]}, good until ")
    assert voucher.expires_at == voucher.signed_at + 3600


@pytest.mark.parametrize(
    ("arguments", "told"),
    (
        (("--expires", "1h"), "needs --key"),
        (("--unsigned", "--key", "x"), "does not go with --key"),
        (("--key", "/nowhere/policy.key"), "/nowhere/policy.key"),
    ),
)
def test_options_that_make_no_sense(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are wrong use, before the documents are read and the store is asked."""
    assert main(["publish", "/nowhere/documents", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_nothing_can_not_be_signed(key: str) -> None:
    """A signature that lists no key would vouch for a store that lost all of them."""
    voucher = voucher_of("--key", key)
    assert voucher is not None
    with pytest.raises(UsageError, match="can't be signed"):
        voucher.sign({}, 1)
