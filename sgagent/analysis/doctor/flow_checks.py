"""Checks of flow tables, by which forwarded packets pass no hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.findings import DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.reach import ReachedRule, is_among


def find_flow_tables(evidence: HostEvidence, rules: Sequence[ReachedRule]) -> Iterator[DoctorFinding]:
    """Yield a finding for each flow table that has a bound link, and a rule that adds sessions to it."""
    adding = {
        (one.base.table, one.effect.flow_table): one for one in rules if one.effect.flow_table is not None
    }
    flow_tables = ((table, one) for table in evidence.other_tables for one in table.flow_tables)
    for table, flow_table in flow_tables:
        links = sorted(name for name in evidence.bound_names if is_among(name, flow_table.devices))
        rule = adding.get((table, flow_table.name))
        if not links or rule is None:
            continue
        yield DoctorFinding(
            code=DoctorCode.FLOW_TABLE,
            severity=DoctorSeverity.MEDIUM,
            link=links[0] if len(links) == 1 else None,
            table=str(table),
            chain=rule.chain,
            evidence=f"rule with handle {rule.rule.handle} adds sessions to the flow table {flow_table.name}"
            f" with {', '.join(links)}",
            effect="packets of an offloaded session pass no hook: a running agent ends it within a second of"
            " the change that revokes it, but a guest may go on with UDP from its side",
            remedy=f"take {', '.join(links)} out of the flow table, or offload only sessions that no policy"
            " may revoke",
        )
