"""Groups whose rules differ in what seldom differs: source ports and near ends."""

from __future__ import annotations

from itertools import count

from sgagent.core.model import ALL_PROTOCOLS, TCP, UDP, Policy, SecurityGroup, SecurityGroupRule
from tests.draws import Draws
from tests.words import DROP, IN, OUT, group, rule


def crowded_groups(draws: Draws) -> tuple[SecurityGroup, SecurityGroup]:
    """Return two groups; the rules of the first, ``sg-1``, agree in all but source ports and near ends."""
    families = {
        "0.0.0.0/0": "10.0.0",
        "10.0.0.0/8": "10.0.0",
        "::/0": "2001:db8:",
        "2001:db8::/32": "2001:db8:",
    }
    numbers = count(0)

    def drawn(draws: Draws) -> SecurityGroupRule:
        far_end = draws.choice((*families, "sg-2"))
        protocol = draws.choice((TCP, TCP, TCP, UDP, ALL_PROTOCOLS))
        near = families.get(far_end, "10.0.0")
        size = draws.choice(("", "", "/24", "/30") if "." in near else ("", "", "/64", "/126"))
        low = f"{near}{'.' if '.' in near else ':'}{0 if size else draws.randint(0, 7)}"
        first = draws.randint(1, 1999)
        return rule(
            f"r{next(numbers)}",
            draws.choice(tuple(Policy)),
            protocol,
            draws.choice(("80", "80", "80-81", "")) if protocol.has_ports else "",
            far_end,
            direction=draws.choice((IN, IN, OUT)),
            priority=draws.randint(1, 4),
            source_ports=f"{first}-{first + draws.choice((0, 9, 60_000))}"
            if protocol.has_ports and draws.chance(60)
            else "",
            local=f"{low}{size}" if draws.chance(60) else None,
        )

    rules = draws.many(drawn, draws.choice((10, 40, 80)), is_full=True)
    return group("sg-1", *rules, inner=DROP), group("sg-2", members=["10.0.0.9", "2001:db8::9"])
