"""What a page shows of a story."""

from __future__ import annotations

from integration.story import DOCUMENT, POLICY, Chapter, markdown

PROMPT = "root@web:~# "
STATUS = ["enforcing since 2026-11-27 14:22:27+00:00 (2 seconds)", "snapshot   sha256:aa", "source     up"]


def page(*lines: str) -> list[str]:
    """Return what the block of a chapter shows."""
    return markdown([Chapter("one", list(lines))]).splitlines()[3:-1]


def test_a_status_shows_what_no_earlier_one_had() -> None:
    """Times alone make no difference; a version does, and so does a line that is new."""
    later = ["enforcing since 2026-11-27 14:22:27+00:00 (9 seconds)", "snapshot   sha256:bb", *STATUS[2:]]
    told = [f"{PROMPT}sgagent status", *STATUS, f"{PROMPT}sgagent status", *later]
    assert page(*told) == [*told[:5], "…", "snapshot   sha256:bb", "…"]


def test_other_commands_show_all_that_they_print() -> None:
    """What a status printed is shown again where another command prints it."""
    told = [f"{PROMPT}sgagent status", *STATUS, "   open: stranger 80", f"{PROMPT}cat status", *STATUS]
    assert page(*told) == told


def test_what_the_package_manager_says_of_itself_is_left_out() -> None:
    """What the package says stays."""
    told = [
        f"{PROMPT}apt-get install",
        "Unpacking sgagent ...",
        "",
        "Setting up sgagent ...",
        "sgagent: hello",
    ]
    assert page(*told) == [told[0], "…", told[-1]]


def test_the_story_shows_the_first_policy() -> None:
    """It is the one that the machine gets, letter by letter."""
    assert f"cat policy/web.yaml\n{POLICY}" in DOCUMENT.read_text(encoding="utf-8")
