"""Ids of rules that are written without one (§4.7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import TCP, UDP, PortListReference, PortSet, SecurityGroupRule
from sgagent.documents.assembly import derive_rule_id
from tests.words import ACCEPT, DROP, OUT, block, rule

WEB = rule("", ACCEPT, TCP, "80", "10.0.0.0/8")


@pytest.mark.parametrize(
    "other",
    (
        replace(WEB, direction=OUT),
        replace(WEB, policy=DROP),
        replace(WEB, priority=2),
        replace(WEB, protocols=(UDP,)),
        replace(WEB, ports=PortSet.of((80, 81))),
        replace(WEB, ports=PortListReference("prl-1")),
        replace(WEB, authorization_objects=(block("10.0.0.0/9"),)),
        replace(WEB, source_ports=PortSet.of((80, 80))),
        replace(WEB, local_address=block("10.0.0.0/8")),
    ),
)
def test_an_id_is_derived_from_all_that_matters(other: SecurityGroupRule) -> None:
    """A rule without an id gets another one if anything that it does is other (§4.7)."""
    assert derive_rule_id("sg-1", WEB) != derive_rule_id("sg-1", other)


def test_an_id_is_derived_from_nothing_else() -> None:
    """Not from its description or the id that it has, but from its group."""
    alike = replace(WEB, rule_id="x", description="the web")
    assert derive_rule_id("sg-1", alike) == derive_rule_id("sg-1", WEB)
    assert derive_rule_id("sg-2", WEB) != derive_rule_id("sg-1", WEB)
    assert derive_rule_id("sg-1", WEB).startswith("auto-")
