"""Change definitions a little, as people do."""

from __future__ import annotations

from dataclasses import replace

from sgagent.core.model import Policy, SecurityGroup, Snapshot
from tests.draws import Draws
from tests.edits import unused_rule_id


def changed(draws: Draws, definitions: Snapshot) -> Snapshot:
    """Return the definitions with one or two groups changed, most often in a way that widens."""
    groups = list(definitions.security_groups)
    for _ in range(draws.choice((1, 1, 2))):
        place = draws.index(groups)
        now = replace(definitions, security_groups=tuple(groups))
        groups[place] = changed_group(draws, groups[place], now)
    return replace(definitions, security_groups=tuple(groups))


def changed_group(draws: Draws, group: SecurityGroup, definitions: Snapshot) -> SecurityGroup:
    """Return a group with a rule less, more or other, or with other members."""
    rules = list(group.rules)
    donors = [rule for other in definitions.security_groups for rule in other.rules]
    match draws.choice(("less", "less", "more", "flip", "member", "inner")):
        case "less" if rules:
            dropping = [rule for rule in rules if rule.policy is Policy.DROP]
            rules.remove(draws.choice(dropping or rules))
        case "more" if donors:
            donor = draws.choice(donors)
            policy = draws.choice((Policy.ACCEPT, donor.policy))
            taken = {rule.rule_id for rule in (*donors, *rules)}
            rules.append(replace(donor, rule_id=unused_rule_id(draws, taken), policy=policy))
        case "flip" if rules:
            place = draws.index(rules)
            rules[place] = replace(rules[place], policy=Policy.ACCEPT)
        case "member":
            members = group.member_addresses[draws.randint(0, 1) :]
            return replace(group, member_addresses=members)
        case "inner":
            return replace(group, inner_access_policy=Policy.ACCEPT)
    return replace(group, rules=tuple(rules))
