"""Check for gateways: rules that admit to every host behind this one, too."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.lint.subject import LintSubject, rule_finding, warning
from sgagent.core.model import Family, Policy
from sgagent.core.rule_values import FAMILY_NAMES


@warning("an ingress rule without local_address on a host that forwards")
def admits_behind(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts of this host that also admit to the hosts, guests and containers behind it (§2.1)."""
    found: dict[RuleKey, set[Family]] = {}
    links: dict[RuleKey, set[str]] = {}
    for judge, stand in zip(subject.life.stands, subject.host_stands, strict=True):
        for family, clause in stand.ingress.deciding_clauses:
            if clause.rule is None or clause.policy is not Policy.ACCEPT:
                continue
            key = key_of(clause.rule)
            if family in subject.life.forwarded and subject.rules[key][1].local_address is None:
                found.setdefault(key, set()).add(family)
                links.setdefault(key, set()).add(judge.name)
    for key, families in sorted(found.items()):
        words = " and ".join(FAMILY_NAMES[family] for family in Family if family in families)
        yield rule_finding(
            key,
            f"this host forwards {words}: the rule admits to every host behind it, too",
            "give it the local_address that is meant: an address of this host, or the network behind it",
            interfaces=tuple(sorted(links[key])),
        )
