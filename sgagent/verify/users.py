"""Who made the socket of a packet, as hooks know it and as rules ask for it (§13.3)."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.core.addresses import Ranges
from sgagent.core.clauses import Clause
from sgagent.core.conditions import LAST_UNIT, LAST_USER
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedInterface
from sgagent.verify.packets import WITH_INPUT_LINK, Constraints

USER, UNIT = "user", "unit"
"""The dimensions: who made it, and in which control group."""

NOBODY, _UNKNOWN = -1, -2
"""What they are without a socket, and of answers of sessions outwards, which do not show whose these are."""

SOMEBODY: Mapping[str, Ranges] = {USER: ((0, LAST_USER),), UNIT: ((0, LAST_UNIT),)}
"""What they can be with one."""


def makers_at(hook: str, opened: Direction) -> Mapping[str, Ranges]:
    """Return the users and units that packets of sessions opened so can have at a hook."""
    if hook not in WITH_INPUT_LINK:
        return {name: ((NOBODY, ranges[-1][1]),) for name, ranges in SOMEBODY.items()}
    maker = NOBODY if opened is Direction.INGRESS else _UNKNOWN
    return dict.fromkeys(SOMEBODY, ((maker, maker),))


def of_maker(clause: Clause) -> Constraints:
    """Return whose packets a clause is about; of unknown makers all that it would let pass (§6.3)."""
    unknown = ((_UNKNOWN, _UNKNOWN),) if clause.policy is Policy.ACCEPT else ()
    wanted = zip((USER, UNIT), clause.makers, strict=True)
    return tuple((name, (*unknown, *ends)) for name, ends in wanted if ends is not None)


def hides_maker(judge: ResolvedInterface, opener: Packet) -> bool:
    """Return whether a packet may hide what decides, so that its session is not remembered (§6.3)."""
    return opener.is_of_unknown_user and judge.egress.has_users
