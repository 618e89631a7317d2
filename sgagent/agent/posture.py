"""The posture of the agent, and the state of each link: what both the agent and who asks it name."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sgagent.core.model import Mode


class InterfaceState(enum.Enum):
    """How an interface's traffic is treated."""

    BOUND = "bound"
    """Its groups judge."""

    WITHOUT_GROUPS = "without_groups"
    """It is bound to no group, so everything is dropped but what is always allowed (§3)."""

    CLOSED = "closed"
    """It is closed for lack of a snapshot (§9.2), or as it is not identified yet (§9.3)."""

    ABSENT = "absent"
    """There is no such link; it is judged from the moment that there is one (§9.3)."""

    PORT = "port"
    """It is bound, but a port of a bridge, bond or team: its packets show as the master's, so its rules see
    none of them (§9.4)."""

    LOWER_DEVICE = "lower_device"
    """It is a port, slave or member of a bound link, as which its packets are judged (§9.5)."""

    UNENFORCEABLE = "unenforceable"
    """It is bound, but a VRF, or its packets pass under another link's name (§9.5, §9.6)."""

    UNBOUND = "unbound"
    """No policy applies to it (§2.3)."""


class Posture(enum.Enum):
    """How the agent treats the host's traffic, in a word."""

    ENFORCING = "enforcing"
    """Verdicts are carried out, on one interface at least."""

    OBSERVING = "observing"
    """Verdicts are counted on every judged interface, and nothing is dropped (§9.1)."""

    IDLE = "idle"
    """A snapshot is in force, but no interface of this host is judged by it."""

    CLOSED = "closed"
    """There is no snapshot that can be enforced, and the host is closed (§9.2)."""

    STANDING = "standing"
    """There is none either, and rules that an earlier agent left stay in force (§9.2)."""

    NOTHING = "nothing"
    """Nothing is enforced, as far as this agent knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatus:
    """One link, there or expected."""

    name: str
    network_interface_id: str | None
    state: InterfaceState
    mode: Mode | None
    """None where no policy applies."""

    security_group_ids: tuple[str, ...] = ()
    """Sorted."""

    is_judged_at_every_packet: bool = False
    """Whether its sessions are not remembered, as the mark has no bits for them."""

    port_of: str | None = None
    """Kind and name of the master, like ``bridge br0``, of a port that is bound, and of a lower device."""

    above: str | None = None
    """The bound link that an unbound one stands on: its packets pass in both directions (§9.6)."""

    fault: str | None = None
    """Why the rules of an unenforceable link do not see all its packets."""

    bridged_frames: str | None = None
    """Why the rules of a bound bridge judge what its ports say to each other, too (§9.4)."""


BOUND_STATES = (InterfaceState.BOUND, InterfaceState.WITHOUT_GROUPS)
"""Of links that are there, and that their groups judge."""

UNJUDGED_STATES = (InterfaceState.UNBOUND, InterfaceState.PORT)
"""Of links whose packets no policy judges under their name."""


def state_in_words(interface: InterfaceStatus) -> str:
    """Return the state of a link in words."""
    words = interface.state.value.replace("_", " ")
    if interface.above is not None:
        return f"{words}, above {interface.above}"
    if interface.bridged_frames is not None:
        return f"{words}, frames between its ports too"
    return words if interface.port_of is None else f"{words} of {interface.port_of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A change of the table by another process."""

    at: float
    """When it was found; seconds since the epoch."""

    process_id: int | None
    """Who made it last, as the host numbers processes; None where it is not known."""

    process_name: str | None
    differed: tuple[str, ...]
    """The first few objects that were not as they should be."""
