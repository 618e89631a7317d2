"""What changes between two sets of definitions."""

from __future__ import annotations

from sgagent.analysis.definition_diff import Edit, Edited, EditKind, edits
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents

BEFORE = """
version: 1
security_groups:
  - security_group_id: sg-web
    name: web
    rules:
      - {rule_id: sgr-1, direction: ingress, policy: accept, protocol: tcp, port_range: 80,
         authorization_object: 0.0.0.0/0}
      - {rule_id: sgr-2, direction: ingress, policy: drop, protocol: udp, port_range: [53, 123],
         source_port_range: 1024/65535, authorization_object: pl-1, local_address: 10.0.0.0/8}
  - security_group_id: sg-old
prefix_lists: [{prefix_list_id: pl-1, address_family: ipv4, entries: [192.0.2.0/24]}]
port_lists: [{port_list_id: prl-1, entries: [80]}]
network_interfaces: [{network_interface_id: eni-1, addresses: [10.0.0.1], security_group_ids: [sg-web]}]
"""


def snapshot(text: str) -> Snapshot:
    """Return what a document holds."""
    return parse_documents([DocumentFile("x.yaml", text.encode())], Limits())[0]


def test_nothing_changed() -> None:
    """Names and descriptions are no change of meaning."""
    assert list(edits(snapshot(BEFORE), snapshot(BEFORE.replace("name: web", "name: front")))) == []


def test_every_kind_of_change_is_told() -> None:
    """With the fields of what changed, before and after."""
    after = (
        BEFORE.replace("port_range: 80,", "port_range: 443, priority: 5,")
        .replace("name: web", "inner_access_policy: drop")
        .replace("  - security_group_id: sg-old\n", "  - security_group_id: sg-new\n")
        .replace("[192.0.2.0/24]", "[]")
        .replace("entries: [80]", "entries: [80, 443]")
        .replace("[10.0.0.1]", "[10.0.0.1, 10.0.0.2]")
    )
    assert list(edits(snapshot(BEFORE), snapshot(after))) == [
        Edited(Edit.ADDED, EditKind.GROUP, "sg-new"),
        Edited(Edit.REMOVED, EditKind.GROUP, "sg-old"),
        Edited(Edit.CHANGED, EditKind.GROUP, "sg-web", ("inner_access_policy: accept -> drop",)),
        Edited(Edit.CHANGED, EditKind.RULE, "sg-web/sgr-1", ("priority: 1 -> 5", "ports: 80/80 -> 443/443")),
        Edited(Edit.CHANGED, EditKind.PREFIX_LIST, "pl-1", ("entries: 192.0.2.0/24 -> none",)),
        Edited(Edit.CHANGED, EditKind.PORT_LIST, "prl-1", ("entries: 80/80 -> 80/80,443/443",)),
        Edited(Edit.CHANGED, EditKind.INTERFACE, "eni-1", ("addresses: 10.0.0.1 -> 10.0.0.1,10.0.0.2",)),
    ]


def test_a_rule_that_comes_or_goes_is_told_whole() -> None:
    """One sees what it is without looking for it."""
    lines = BEFORE.splitlines(keepends=True)
    without = "".join(lines[:8] + lines[10:])
    (gone,) = edits(snapshot(BEFORE), snapshot(without))
    assert gone == Edited(
        Edit.REMOVED,
        EditKind.RULE,
        "sg-web/sgr-2",
        ("ingress drop priority 1 udp 53/53,123/123 from ports 1024/65535 pl-1 at 10.0.0.0/8",),
    )


def test_the_end_of_a_rule_is_told() -> None:
    """Where it comes, and where its end changes, as RFC 3339 in UTC."""
    ending = BEFORE.replace("port_range: 80,", "port_range: 80, expires: 2026-12-31T18:00:00+01:00,")
    (changed,) = edits(snapshot(BEFORE), snapshot(ending))
    assert changed.details == ("expires: none -> 2026-12-31T17:00:00Z",)
    added = [
        one.details for one in edits(Snapshot(version=""), snapshot(ending)) if one.kind is EditKind.RULE
    ]
    assert added[0] == ("ingress accept priority 1 tcp 80/80 0.0.0.0/0 until 2026-12-31T17:00:00Z",)


def test_a_long_list_is_cut() -> None:
    """The rest is counted."""
    many = ", ".join(f"10.0.0.{number}" for number in range(1, 10))
    (edited,) = edits(snapshot(BEFORE), snapshot(BEFORE.replace("[10.0.0.1]", f"[{many}]")))
    assert edited.details[0].endswith("10.0.0.6 and 3 more")
