"""The page is served to this host alone, unless the configuration says otherwise."""

from __future__ import annotations

import pytest

from sgagent.core.errors import UsageError
from sgagent.settings import parse_settings
from sgagent.settings.tables import PageServing


@pytest.mark.parametrize(
    ("listen", "is_served"),
    (
        ("127.0.0.1:9469", True),
        ("127.8.9.1:80", True),
        ("[::1]:9469", True),
        ("localhost:9469", True),
        ("0.0.0.0:9469", False),
        ("[::]:9469", False),
        ("10.0.0.11:9469", False),
        ("web-1.example:9469", False),
    ),
)
def test_by_default_it_is_served_on_loopback(listen: str, *, is_served: bool) -> None:
    """A name may stand for any address, but for the one that never does."""
    assert parse_settings(f"[metrics]\nlisten = '{listen}'\n", "a").metrics.serves_page is is_served
    always = parse_settings(f"[metrics]\nlisten = '{listen}'\npage = 'always'\n", "a").metrics
    never = parse_settings(f"[metrics]\nlisten = '{listen}'\npage = 'never'\n", "a").metrics
    assert (always.serves_page, never.serves_page) == (True, False)


def test_without_configuration_it_is_there() -> None:
    """The default address is one of loopback."""
    settings = parse_settings("", "a").metrics
    assert settings.page is PageServing.LOOPBACK
    assert settings.serves_page


def test_another_word_is_an_error() -> None:
    """It names the key, and the words that there are."""
    with pytest.raises(UsageError, match=r"metrics\.page: .*'maybe'.*loopback.*always.*never"):
        parse_settings("[metrics]\npage = 'maybe'\n", "a")
