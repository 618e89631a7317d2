"""Change definitions a little, as people do."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from sgagent.core.model import Policy, SecurityGroup, Snapshot


def changed(random: Random, definitions: Snapshot) -> Snapshot:
    """Return the definitions with one or two groups changed, most often in a way that widens."""
    groups = list(definitions.security_groups)
    for _ in range(random.choice((1, 1, 2))):
        place = random.randrange(len(groups))
        groups[place] = changed_group(random, groups[place], definitions)
    return replace(definitions, security_groups=tuple(groups))


def changed_group(random: Random, group: SecurityGroup, definitions: Snapshot) -> SecurityGroup:
    """Return a group with a rule less, more or other, or with other members."""
    rules = list(group.rules)
    donors = [rule for other in definitions.security_groups for rule in other.rules]
    match random.choice(("less", "less", "more", "flip", "member", "inner")):
        case "less" if rules:
            dropping = [rule for rule in rules if rule.policy is Policy.DROP]
            rules.remove(random.choice(dropping or rules))
        case "more" if donors:
            donor = random.choice(donors)
            policy = random.choice((Policy.ACCEPT, donor.policy))
            rules.append(replace(donor, rule_id=f"sgr-new-{random.getrandbits(64)}", policy=policy))
        case "flip" if rules:
            place = random.randrange(len(rules))
            rules[place] = replace(rules[place], policy=Policy.ACCEPT)
        case "member":
            members = group.member_addresses[random.randrange(2) :]
            return replace(group, member_addresses=members)
        case "inner":
            return replace(group, inner_access_policy=Policy.ACCEPT)
    return replace(group, rules=tuple(rules))
