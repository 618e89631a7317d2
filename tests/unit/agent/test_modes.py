"""Modes that stand before the configuration's: what they mean, and their file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.agent.manual_override import ModeFile, ModeOverrides
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy

ENFORCE, OBSERVE = Mode.ENFORCE, Mode.OBSERVE
POLICY = ResolvedPolicy(
    interfaces=(ResolvedInterface(name="eth0"), ResolvedInterface(name="eth1", mode=OBSERVE)),
    unbound=ResolvedInterface(name="*"),
)


def modes(overrides: ModeOverrides) -> dict[str, Mode]:
    """Return the modes that hold."""
    policy = overrides.over(POLICY)
    judges = (*policy.interfaces, policy.unbound)
    return {judge.name: judge.mode for judge in judges if judge is not None}


def test_nothing_stands_before_the_configuration_at_first() -> None:
    """The policy is the very same."""
    assert not ModeOverrides()
    assert ModeOverrides().over(POLICY) == POLICY


def test_an_order_about_every_interface_takes_the_place_of_all_others() -> None:
    """Of those about single ones, of modes of the configuration, and of what no interface is bound to."""
    overrides = ModeOverrides().switched("eth0", OBSERVE).switched(None, OBSERVE)
    assert overrides == ModeOverrides(everywhere=OBSERVE)
    assert set(modes(overrides).values()) == {OBSERVE}
    assert not overrides.switched(None, None)


def test_an_order_about_one_interface_stands_before_that_about_every_one() -> None:
    """Clearing it lets the other hold again."""
    overrides = ModeOverrides().switched(None, OBSERVE).switched("eth0", ENFORCE)
    assert modes(overrides) == {"eth0": ENFORCE, "eth1": OBSERVE, "*": OBSERVE}
    assert modes(overrides.switched("eth0", None)) == {"eth0": OBSERVE, "eth1": OBSERVE, "*": OBSERVE}


def test_they_outlive_the_agent(tmp_path: Path) -> None:
    """Until they are cleared, which leaves no file."""
    file = ModeFile(tmp_path / "state")
    assert file.load() == (ModeOverrides(), None)
    overrides = ModeOverrides().switched(None, OBSERVE).switched("eth0", ENFORCE)
    file.save(overrides)
    assert file.load() == (overrides, None)
    file.save(ModeOverrides())
    assert file.load() == (ModeOverrides(), None)
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize(
    "content", (b"", b"[]", b"\x00\x00", b'{"format": 2, "sha256": "", "body": ""}', b"{}")
)
def test_a_damaged_file_is_named_and_the_configuration_holds(tmp_path: Path, content: bytes) -> None:
    """What can't be read stands before nothing."""
    (tmp_path / "modes.json").write_bytes(content)
    overrides, fault = ModeFile(tmp_path).load()
    assert not overrides
    assert str(tmp_path / "modes.json") in (fault or "")
