"""Ids of rules that are written without one (§4.7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import TCP, UDP, PortListReference, PortSet, SecurityGroupRule
from sgagent.documents.assembly import derive_rule_id
from tests.unit.documents.reading import rule_document, snapshot, the_rule
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


@pytest.mark.parametrize(
    ("field", "one", "same", "other"),
    (
        (
            "limit_per_source",
            "10/minute",
            {"rate": "10/minute", "burst": 10},
            {"rate": "10/minute", "burst": 11},
        ),
        ("local", {"user": 0}, {"user": "0"}, {"user": "root"}),
        ("active", {"to": "12:00"}, {"days": "mon-sun", "to": "12:00", "zone": "UTC"}, {"to": "12:01"}),
        ("expires", "2026-12-31T18:00:00+01:00", "2026-12-31T17:00:00Z", "2026-12-31T17:00:01Z"),
    ),
)
def test_ids_and_versions_are_of_values_however_written(
    field: str, one: object, same: object, other: object
) -> None:
    """What says the same has the same id and version; another value, and none, have others (§4.7)."""
    found = [
        snapshot(rule_document(direction="egress", **{field: value})) for value in (None, one, same, other)
    ]
    for names in ([the_rule(each).rule_id for each in found], [each.version for each in found]):
        assert names[1] == names[2]
        assert len({*names}) == 3
