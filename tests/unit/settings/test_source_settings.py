"""Where the configuration says that definitions come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.settings import parse_settings
from sgagent.settings.sources import AnySource, FileSourceSettings, HttpsSourceSettings, ServerUrl
from tests.unit.settings.test_settings import faults

HTTPS = '[source]\ntype = "https"\nurl = "https://policy.example.com/web.yaml"\n'


def read(text: str) -> AnySource:
    """Return the source that a configuration names."""
    return parse_settings(text, "sgagent.toml").source


def fault(text: str) -> str:
    """Return the one fault of a configuration."""
    (line,) = faults(text)
    return line


def test_a_source_is_a_file_unless_it_is_said_otherwise() -> None:
    """And the place is the one that packages make."""
    assert read("") == read("[source]") == FileSourceSettings(path=Path("/etc/sgagent/groups.d"))
    assert read("").place == "file /etc/sgagent/groups.d"


def test_an_https_source_needs_nothing_but_its_url() -> None:
    """All else has a default."""
    source = read(HTTPS)
    assert source == HttpsSourceSettings(url=ServerUrl(host="policy.example.com", target="/web.yaml"))
    assert source.place == "https https://policy.example.com/web.yaml"


def test_every_key_of_an_https_source_is_read() -> None:
    """What is written wins over the default."""
    source = read(
        HTTPS
        + "poll_seconds = 10\nlong_poll_seconds = 60\nconnect_timeout_seconds = 3\ntimeout_seconds = 20\n"
        'ca_file = "/etc/ca.pem"\nclient_certificate = "/etc/c.pem"\nclient_key = "/etc/c.key"\n'
        'token_file = "/run/token"\n'
    )
    assert source == HttpsSourceSettings(
        url=ServerUrl(host="policy.example.com", target="/web.yaml"),
        poll_seconds=10,
        long_poll_seconds=60,
        connect_timeout_seconds=3,
        timeout_seconds=20,
        ca_file=Path("/etc/ca.pem"),
        client_certificate=Path("/etc/c.pem"),
        client_key=Path("/etc/c.key"),
        token_file=Path("/run/token"),
    )


@pytest.mark.parametrize(
    ("text", "url"),
    (
        ("https://Policy.Example.COM", ServerUrl(host="policy.example.com", target="/")),
        ("https://a/b/c?d=e&f", ServerUrl(host="a", target="/b/c?d=e&f")),
        (f"https://a{'.a' * 126}", ServerUrl(host=f"a{'.a' * 126}", target="/")),
        (f"https://{'a' * 63}.b", ServerUrl(host=f"{'a' * 63}.b", target="/")),
        ("https://192.0.2.1:8443/p", ServerUrl(host="192.0.2.1", port=8443, target="/p")),
        ("https://[2001:db8::1]:8443/p", ServerUrl(host="2001:db8::1", port=8443, target="/p")),
    ),
)
def test_urls(text: str, url: ServerUrl) -> None:
    """Hosts are names or addresses, with or without a port; what is written out again is the same URL."""
    source = read(f'[source]\ntype = "https"\nurl = "{text}"')
    assert isinstance(source, HttpsSourceSettings)
    assert source.url == url
    assert str(url).rstrip("/") == text.lower()


@pytest.mark.parametrize(
    "url",
    (
        "http://policy.example.com/",
        "policy.example.com",
        "https://",
        "https:///web.yaml",
        "https://user:secret@policy.example.com/",
        "https://policy.example.com/#top",
        "https://policy.example.com:0/",
        "https://policy.example.com:99999/",
        "https://[2001:db8::1/",
        "https://[fe80::g]/",
        "https://-x-/",
        "https://a..b/",
        "https://policy.example.com./",
        f"https://{'a' * 64}.example.com/",
        f"https://{'a.' * 127}b/",
        "https://ex ample/",
        "https://exämple/",
        "https://a/\\nHost: b",
    ),
)
def test_what_is_no_url_of_a_document(url: str) -> None:
    """It is told with what would be right."""
    assert fault(f'[source]\ntype = "https"\nurl = "{url}"').startswith("error: sgagent.toml:3: source.url: ")


@pytest.mark.parametrize(
    ("text", "told"),
    (
        ('[source]\ntype = "https"', "source.url: missing"),
        (HTTPS + 'path = "/x"', 'source.path: a source of type "https" has no such key'),
        ('[source]\nurl = "https://a/"', 'source.url: a source of type "file" has no such key'),
        (HTTPS + "poll_second = 1", "did you mean poll_seconds?"),
        (
            HTTPS + "poll_seconds = 0",
            "source.poll_seconds: the number is out of range: '0' (from 1 to 86400)",
        ),
        (HTTPS + "timeout_seconds = 9999", "source.timeout_seconds: the number is out of range"),
        (HTTPS + 'client_key = "/x"', "source.client_certificate: missing"),
        (HTTPS + 'ca_file = ""', "source.ca_file: not a path: '' (/etc/sgagent/ca.pem)"),
    ),
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    """Each is one fault with its key and what would be right."""
    assert told in fault(text)


KEY = "ed25519:" + "A" * 43 + "="


def test_keys_are_pinned() -> None:
    """One or several; a signature is required then unless it is said otherwise."""
    settings = parse_settings(f'[signature]\npublic_keys = ["{KEY}", "{KEY}"]', "sgagent.toml").signature
    assert [str(key) for key in settings.public_keys] == [KEY]
    assert settings.required
    relaxed = parse_settings(f'[signature]\npublic_keys = ["{KEY}"]\nrequired = false', "sgagent.toml")
    assert not relaxed.signature.required
    assert parse_settings("", "sgagent.toml").signature.public_keys == ()


@pytest.mark.parametrize(
    ("text", "told"),
    (
        ("[signature]\nrequired = true", "signature.public_keys: missing"),
        ("[signature]\npublic_keys = []", "signature.public_keys: an empty list"),
        ('[signature]\npublic_keys = ["x"]', "signature.public_keys[0]: not a public key"),
        ("[signature]\npublic_keys = [3]", "signature.public_keys[0]: expected a text, found a whole number"),
        (f'[signature]\npublic_keys = "{KEY}"', "signature.public_keys: expected a list, found text"),
        (f'[signature]\npublic_keys = ["{KEY}"]\nrequire = true', "did you mean required?"),
    ),
)
def test_what_is_wrong_about_keys_is_told(text: str, told: str) -> None:
    """Each is one fault; nothing is taken unsigned for a typing mistake."""
    assert told in fault(text)
