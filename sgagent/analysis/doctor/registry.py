"""All checks of the doctor, and the function that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sgagent.analysis.doctor import host_checks, link_checks
from sgagent.analysis.doctor.drop_checks import find_drops
from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.findings import DoctorFinding, order
from sgagent.analysis.doctor.reach import ReachedRules
from sgagent.analysis.doctor.rule_checks import RULE_CHECKS, find_flow_tables, find_tracked_frames

CHECKS: tuple[Callable[[HostEvidence], Iterator[DoctorFinding]], ...] = (
    link_checks.find_topology,
    link_checks.find_foreign_links,
    link_checks.find_ipvlans,
    link_checks.find_programs,
    link_checks.find_asymmetry,
    link_checks.find_marked_routes,
    link_checks.find_refusals,
    link_checks.find_forwarding,
    link_checks.find_transforms,
    host_checks.find_virtual_servers,
    host_checks.find_flushers,
    host_checks.find_old_nft,
    host_checks.find_clock,
    host_checks.find_kernel_features,
    host_checks.find_metrics_port,
)
"""Those that look at no rules."""


def diagnose(evidence: HostEvidence) -> tuple[DoctorFinding, ...]:
    """Return the findings of all checks, the heaviest first."""
    found = {one for check in CHECKS for one in check(evidence)}
    reached = ReachedRules(evidence)
    rules = tuple(reached.rules())
    for check in RULE_CHECKS:
        found.update(check.run(rules, evidence))
    found.update(link_checks.find_way_back_rules(evidence, rules))
    found.update(find_flow_tables(evidence, rules))
    found.update(find_tracked_frames(evidence))
    found.update(find_drops(evidence, tuple(reached.base_chains()), rules))
    return tuple(sorted(found, key=order))
