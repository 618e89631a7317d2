"""Mode overrides at run time: enforce or observe until cleared, stored across restarts (§9.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sgagent.agent.state.atomic_file import remove_durably, write_durably
from sgagent.agent.state.json_model import UNREADABLE, from_json, seal, to_json, unseal
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy

_NAME = "modes.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOverrides:
    """Modes that stand before those of the configuration."""

    everywhere: Mode | None = None
    """For every interface that has none of its own here."""

    by_interface: Mapping[str, Mode] = field(default_factory=dict)

    def of(self, interface: str) -> Mode | None:
        """Return the mode that stands before the configuration's; None where that one holds."""
        return self.by_interface.get(interface, self.everywhere)

    def over(self, policy: ResolvedPolicy) -> ResolvedPolicy:
        """Return a policy in these modes."""
        return replace(
            policy,
            interfaces=tuple(self._over(interface) for interface in policy.interfaces),
            unbound=policy.unbound and self._over(policy.unbound),
        )

    def _over(self, interface: ResolvedInterface) -> ResolvedInterface:
        mode = self.of(interface.name)
        return interface if mode in (None, interface.mode) else replace(interface, mode=mode)

    def switched(self, interface: str | None, mode: Mode | None) -> ModeOverrides:
        """Return the overrides after one more.

        Args:
            interface: None is every interface, and takes the place of all overrides there are.
            mode: None is what the configuration says.
        """
        if interface is None:
            return ModeOverrides(everywhere=mode)
        others = {name: found for name, found in self.by_interface.items() if name != interface}
        return replace(self, by_interface=others if mode is None else {**others, interface: mode})

    def __bool__(self) -> bool:
        """Return whether anything stands before the configuration."""
        return self.everywhere is not None or bool(self.by_interface)


class ModeFile:
    """The file that overrides are kept in, over restarts and reboots."""

    def __init__(self, directory: Path) -> None:
        """Take the state directory; it is made when something is kept."""
        self._path = directory / _NAME

    def load(self) -> tuple[ModeOverrides, str | None]:
        """Return what was kept, and what is wrong with the file; the configuration holds then."""
        try:
            return _decode(self._path.read_bytes()), None
        except FileNotFoundError:
            return ModeOverrides(), None
        except OSError as error:
            return ModeOverrides(), f"{self._path}: {error.strerror}"
        except UNREADABLE as error:
            return ModeOverrides(), f"{self._path}: not a file of modes: {error}"

    def save(self, overrides: ModeOverrides) -> None:
        """Keep these instead of those before.

        Raises:
            OSError: nothing was changed.
        """
        if overrides:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path, _encode(overrides))
        else:
            remove_durably(self._path)


@dataclass(frozen=True, slots=True)
class _Body:
    """What the file holds below its checksum."""

    everywhere: Mode | None
    interfaces: dict[str, Mode]


def _encode(overrides: ModeOverrides) -> bytes:
    modes = dict(sorted(overrides.by_interface.items()))
    return seal(to_json(_Body(everywhere=overrides.everywhere, interfaces=modes)), _FORMAT)


def _decode(content: bytes) -> ModeOverrides:
    body = from_json(_Body, unseal(content, _FORMAT)[0])
    return ModeOverrides(everywhere=body.everywhere, by_interface=body.interfaces)
