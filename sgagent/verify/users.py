"""Who made the socket of a packet, as hooks know it and as rules ask for it (§13.3)."""

from __future__ import annotations

from sgagent.core.addresses import Ranges
from sgagent.core.conditions import LAST_USER
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedRule
from sgagent.verify.packets import WITH_INPUT_LINK, Constraints

USER = "user"
"""The dimension."""

NOBODY, _UNKNOWN = -1, -2
"""What it is without a socket, and of answers of sessions outwards, which do not show whose these are."""

SOMEBODY: Ranges = ((0, LAST_USER),)


def users_at(hook: str, opened: Direction) -> Ranges:
    """Return the users that packets of sessions opened so can have at a hook."""
    if hook not in WITH_INPUT_LINK:
        return ((NOBODY, LAST_USER),)
    user = NOBODY if opened is Direction.INGRESS else _UNKNOWN
    return ((user, user),)


def of_user(rule: ResolvedRule) -> Constraints:
    """Return whose packets a rule is about; of an unknown user all that it would let pass (§6.3)."""
    if rule.user is None:
        return ()
    unknown = ((_UNKNOWN, _UNKNOWN),) if rule.policy is Policy.ACCEPT else ()
    return ((USER, (*unknown, (rule.user, rule.user))),)


def hides_user(judge: ResolvedInterface, opener: Packet) -> bool:
    """Return whether a packet may hide what decides, so that its session is not remembered (§6.3)."""
    return opener.is_of_unknown_user and judge.egress.has_users
