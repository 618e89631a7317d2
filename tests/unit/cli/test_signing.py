"""``sgagent keygen``, ``sgagent sign``, and what ``sgagent check`` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgagent.cli.main import main
from sgagent.signatures import MOST_SIGNATURES, PrivateKey, SignatureFile

WEB = "version: 1\nsecurity_groups: [{security_group_id: sg-web, type: basic}]\n"
NO_CONFIGURATION = ("--config", "/dev/null")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Give a private key."""
    path = tmp_path / "policy.key"
    assert main(["keygen", "--out", str(path), *NO_CONFIGURATION]) == 0
    return path


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Give a directory with a document."""
    directory = tmp_path / "groups.d"
    directory.mkdir()
    (directory / "web.yaml").write_text(WEB)
    return directory


def sign(path: Path, key: Path, *more: str) -> int:
    """Sign, and return the exit code."""
    return main(["sign", str(path), "--key", str(key), *more, *NO_CONFIGURATION])


def manifest_of(path: Path) -> SignatureFile:
    """Return what a signature file says."""
    return SignatureFile.parse(path.read_bytes())


def test_a_key_is_its_owners_alone(key: Path) -> None:
    """Nobody else may read the file."""
    assert key.stat().st_mode & 0o777 == 0o600
    PrivateKey.load(key.read_bytes())


def test_a_key_is_never_overwritten(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It could not be made again."""
    before = key.read_bytes()
    assert main(["keygen", "--out", str(key)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert key.read_bytes() == before


def test_the_public_key_can_be_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the form of the configuration, and as JSON; the private one is printed never."""
    key = tmp_path / "policy.key"
    main(["keygen", "--out", str(key)])
    printed = capsys.readouterr().out
    assert main(["keygen", "--show", str(key)]) == 0
    assert capsys.readouterr().out == printed
    main(["keygen", "--show", str(key), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert printed == f'public_keys = ["{shown["public_key"]}"]\n'
    assert "PRIVATE" not in printed


def test_signing_counts_on(documents: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each publication has the next serial, unless it is said otherwise."""
    serials = []
    for more in ((), (), ("--serial", "40"), ("--expires", "30d")):
        assert sign(documents, key, *more) == 0
        serials.append(manifest_of(documents / "sgagent.sig").manifest.serial)
    assert serials == [1, 2, 40, 41]
    manifest = manifest_of(documents / "sgagent.sig").manifest
    assert manifest.expires_at == manifest.signed_at + 30 * 86_400
    assert "signed 1 document as serial 41, good until " in capsys.readouterr().out


def test_a_document_is_signed_beside_itself(documents: Path, key: Path) -> None:
    """And two keys may sign."""
    other = documents.parent / "other.key"
    main(["keygen", "--out", str(other)])
    assert sign(documents / "web.yaml", key, "--key", str(other)) == 0
    file = manifest_of(documents / "web.yaml.sig")
    assert [signed.name for signed in file.manifest.files] == ["web.yaml"]
    assert len({signature.key_id for signature in file.signatures}) == 2


def test_signatures_show_as_json(documents: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For pipelines."""
    capsys.readouterr()
    sign(documents, key, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["serial"], printed["expires_at"]) == (1, None)
    assert [file["name"] for file in printed["files"]] == ["web.yaml"]


def test_what_has_errors_is_unsigned(documents: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of form and of meaning, and warnings where they are strict."""
    rule = "{direction: ingress, policy: drop, protocol: all, authorization_object: sg-gone}"
    for text in ("version: 1\ncolour: red\n", WEB.replace("type: basic", f"type: basic, rules: [{rule}]")):
        (documents / "web.yaml").write_text(text)
        assert sign(documents, key) == 2
    (documents / "web.yaml").write_text(
        WEB.replace("type: basic", f"type: basic, rules: [{rule.replace('drop', 'accept')}]")
    )
    assert sign(documents, key, "--strict") == 2
    assert not (documents / "sgagent.sig").exists()
    assert sign(documents, key) == 0
    assert "sg-gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    (
        (("--serial", "0"), "expected a whole number from 1"),
        (("--expires", "tomorrow"), "expected a time like 90m, 12h or 30d"),
        (("--key", "/nonexistent"), "can't be read: No such file"),
        (("--key", "/dev/null"), "everybody can read this secret"),
    ),
)
def test_wrong_use(
    more: tuple[str, ...], told: str, documents: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and nothing is signed."""
    assert sign(documents, key, *more) == 2
    assert told in capsys.readouterr().err
    assert not (documents / "sgagent.sig").exists()


def test_keys_that_hosts_would_refuse_together(
    documents: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same key twice, or too many; nothing is signed."""
    assert sign(documents, key, "--key", str(key)) == 2
    assert "the same key is given twice" in capsys.readouterr().err
    more: list[str] = []
    for number in range(MOST_SIGNATURES):
        other = tmp_path / f"{number}.key"
        assert main(["keygen", "--out", str(other)]) == 0
        more += ["--key", str(other)]
    assert sign(documents, key, *more) == 2
    assert "17 keys; expected at most 16" in capsys.readouterr().err
    assert not (documents / "sgagent.sig").exists()


def test_a_path_that_is_not_there(key: Path, tmp_path: Path) -> None:
    """It is wrong use."""
    assert sign(tmp_path / "nothing", key) == 2


def test_a_doubtful_earlier_signature(documents: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows which serial was before, so it has to be said."""
    (documents / "sgagent.sig").write_text("nonsense")
    assert sign(documents, key) == 2
    assert "say --serial" in capsys.readouterr().err
    assert sign(documents, key, "--serial", "9") == 0


def test_check_knows_the_pinned_keys(documents: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is signed passes, what was changed since does not, and what is named by hand is not asked."""
    configuration = documents.parent / "sgagent.toml"
    capsys.readouterr()
    main(["keygen", "--show", str(key)])
    configuration.write_text(
        f'[source]\npath = "{documents}"\n[signature]\n{capsys.readouterr().out}\n'
        f'[state]\ndirectory = "{documents.parent / "state"}"\n'
    )
    check = ["check", "--config", str(configuration)]
    assert main(check) == 2
    assert "there is no signature" in capsys.readouterr().out
    assert sign(documents, key) == 0
    assert main(check) == 0
    (documents / "web.yaml").write_text(WEB.replace("sg-web", "sg-app"))
    assert main(check) == 2
    assert "differs from the one that was signed" in capsys.readouterr().out
    assert main([*check, "--definitions", str(documents)]) == 0
