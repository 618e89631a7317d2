"""Say which total a line of an answer shows."""

from __future__ import annotations

from typing import assert_never

from sgagent.agent.asking.questions import Hit, HitStep, InterfaceHits
from sgagent.core.kernel.counters import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    RuleCounter,
)


def counter_of(part: InterfaceHits, hit: Hit) -> CounterKey:
    """Return the key of the total that a hit of an interface and direction shows."""
    interface, direction = part.interface, part.direction
    match hit.step:
        case HitStep.INVALID:
            return InvalidCounter(interface=interface, direction=direction)
        case HitStep.PLATFORM:
            return ExemptionCounter(interface=interface, direction=direction, kind=ExemptionKind.PLATFORM)
        case HitStep.FAILSAFE:
            return ExemptionCounter(interface=interface, direction=direction, kind=ExemptionKind.FAILSAFE)
        case HitStep.INNER:
            return InnerCounter(interface=interface)
        case HitStep.RULE:
            return RuleCounter(
                interface=interface,
                security_group_id=hit.security_group_id or "",
                rule_id=hit.rule_id or "",
                direction=direction,
                policy=hit.verdict,
            )
        case HitStep.DEFAULT:
            return DefaultCounter(interface=interface, direction=direction, verdict=hit.verdict)
        case _:
            assert_never(hit.step)
