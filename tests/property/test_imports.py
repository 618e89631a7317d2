"""What is imported means what it meant, and never more."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from hypothesis import event, example, given, strategies as st

from sgagent.core.binding import bind_everywhere
from sgagent.core.errors import DocumentError
from sgagent.core.evaluate import evaluate, is_always_allowed
from sgagent.core.model import Policy, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Scope, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writer import as_yaml, write_document
from sgagent.importers import Imported, import_aws, import_terraform
from tests.draws import Draws
from tests.ec2 import Answer, allows, answers, packets
from tests.strategies import draws, examples, noted_snapshot

T = TypeVar("T")

PACKETS = 60
"""Of those that answers can tell apart, for each set of answers."""

EVERY_PACKET = tuple(packets())


def imported(told: list[Answer]) -> Imported:
    """Return what the answers come to."""
    return import_aws([DocumentFile("answers.json", json.dumps(told).encode())], Limits())


def written(snapshot: Snapshot) -> Snapshot:
    """Return what a reader of the written document gets."""
    text = as_yaml(write_document(snapshot))
    return parse_documents([DocumentFile("imported.yaml", text.encode())], Limits())[0]


def policy_of(told: Imported) -> ResolvedPolicy:
    """Return the policy of every interface, by way of the written document."""
    snapshot = written(told.snapshot)
    resolution = resolve(snapshot, bind_everywhere(snapshot), Exemptions(), scope=Scope.EVERYTHING)
    assert resolution.errors == ()
    assert resolution.policy is not None
    return resolution.policy


@examples(50)
@given(answers(with_what_has_no_equal=False), draws())
def test_what_has_an_equal_is_equal(told: list[Answer], draws: Draws) -> None:
    """Without a note, every packet is decided as AWS decides it."""
    found = imported(told)
    assert found.notes == ()
    policy = policy_of(found)
    for judged in draws.sample(EVERY_PACKET, PACKETS):
        if is_always_allowed(judged.packet) or judged.packet.destination_port == 0:
            continue
        accepts = evaluate(policy, judged.packet).verdict is Policy.ACCEPT
        assert accepts == allows(told, judged), judged


@examples(50)
@given(answers(with_what_has_no_equal=True), draws())
def test_nothing_is_ever_widened(told: list[Answer], draws: Draws) -> None:
    """What has no equal narrows: no packet passes that AWS would drop."""
    policy = policy_of(imported(told))
    for judged in draws.sample(EVERY_PACKET, PACKETS):
        if evaluate(policy, judged.packet).verdict is Policy.ACCEPT and not is_always_allowed(judged.packet):
            assert allows(told, judged), judged


NOTHING: tuple[object, ...] = ("absent", None, "", [], {})
IMPOSSIBLE: tuple[object, ...] = (-5, 65536, 10**30, 1.5, True, "?", [None], ["?"], {"?": 0})
MEANT: tuple[tuple[str, object], ...] = (("entry", []), ("priority", 65536))
"""What is no damage: a list without entries, and a priority that is ordered as a number (§4.6)."""

Damage = tuple[float, object]
DAMAGE = st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from((*NOTHING, *IMPOSSIBLE)))
"""Which of all fields, and what stands there instead."""


def places_in(tree: object) -> Iterator[tuple[dict[str, Any], str]]:
    """Go through all fields: the mapping that each stands in, and its name."""
    if isinstance(tree, dict):
        yield from ((tree, name) for name in tree)
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from places_in(inner)


def damaged(tree: T, damage: Sequence[Damage]) -> T:
    """Return a value with some fields absent, null, empty or out of range."""
    found: T = copy.deepcopy(tree)
    for part, value in damage:
        places = list(places_in(found))
        if not places:
            break
        fields, name = places[int(part * len(places))]
        if value == "absent":
            del fields[name]
        elif (name, value) not in MEANT:
            fields[name] = copy.deepcopy(value)
    return found


def policy_if_taken(read: Callable[[], Imported]) -> ResolvedPolicy | None:
    """Return the policy of what is read; None if it is refused."""
    try:
        found = read()
    except DocumentError:
        return None
    snapshot = written(found.snapshot)
    resolution = resolve(snapshot, bind_everywhere(snapshot), Exemptions(), scope=Scope.EVERYTHING)
    return None if resolution.errors else resolution.policy


@examples(50)
@given(answers(with_what_has_no_equal=True), st.lists(DAMAGE, min_size=1, max_size=2), draws())
def test_a_damaged_answer_is_never_wider(told: list[Answer], damage: list[Damage], draws: Draws) -> None:
    """Whatever field is absent, null, empty or out of range: a refusal, or nothing that was not allowed."""
    policy = policy_if_taken(lambda: imported(damaged(told, damage)))
    if policy is None:
        return
    event("taken")
    bound = {one.name for one in policy.interfaces}
    for judged in draws.sample(EVERY_PACKET, PACKETS):
        if is_always_allowed(judged.packet) or judged.packet.interface not in bound:
            continue
        if evaluate(policy, judged.packet).verdict is Policy.ACCEPT:
            assert allows(told, judged), judged


def alicloud(kind: str, **values: object) -> Answer:
    """Return a resource of Alibaba Cloud in a state of Terraform."""
    name = f"alicloud_{kind}"
    return {"address": f"{name}.this", "mode": "managed", "type": name, "values": values}


def alicloud_rule(policy: str, priority: int, **values: object) -> Answer:
    """Return a rule for TCP."""
    usual = {
        "security_group_id": "sg-a",
        "type": "ingress",
        "ip_protocol": "tcp",
        "nic_type": "intranet",
        "policy": policy,
        "priority": priority,
        "port_range": "1/3",
    }
    return alicloud("security_group_rule", **usual, **values)


RESOURCES = [
    alicloud(
        "security_group", id="sg-a", security_group_type="normal", inner_access_policy="Drop", vpc_id="vpc-1"
    ),
    alicloud("security_group", id="sg-b", security_group_type="enterprise", vpc_id="vpc-1"),
    alicloud_rule("accept", 50, cidr_ip="0.0.0.0/0"),
    alicloud_rule("drop", 20, source_security_group_id="sg-b"),
    alicloud_rule("drop", 10, prefix_list_id="pl-1"),
    alicloud_rule("drop", 60, cidr_ip="198.51.100.0/25"),
    alicloud("ecs_prefix_list", id="pl-1", address_family="IPv4", entry=[{"cidr": "198.51.100.128/25"}]),
    alicloud(
        "ecs_network_interface",
        id="eni-1",
        mac="00:16:3e:00:00:01",
        primary_ip_address="10.0.0.1",
        security_group_ids=["sg-a"],
    ),
    alicloud(
        "instance",
        id="i-2",
        network_interface_id="eni-2",
        private_ip="10.0.0.2",
        security_groups=["sg-b"],
        network_interfaces=[{"network_interface_id": "eni-3", "security_group_ids": ["sg-b"]}],
    ),
    alicloud("network_interface", id="eni-3", private_ip="10.0.1.3", security_groups=["sg-b"]),
    alicloud("ecs_network_interface_attachment", instance_id="i-2", network_interface_id="eni-3"),
]
"""A drop rule for each kind of object, before and behind an accept rule."""


def imported_state(resources: object) -> Imported:
    """Return what a state comes to."""
    state = {"values": {"root_module": {"resources": resources}}}
    return import_terraform([DocumentFile("state.json", json.dumps(state).encode())], Limits())


@cache
def policy_of_resources() -> ResolvedPolicy:
    """Return what the resources come to undamaged."""
    return policy_of(imported_state(RESOURCES))


@given(st.lists(DAMAGE, min_size=1, max_size=2))
@examples(400)
def test_a_damaged_state_is_never_wider(damage: list[Damage]) -> None:
    """So it is where rules drop: what a drop rule depends on is never lost."""
    policy = policy_if_taken(lambda: imported_state(damaged(RESOURCES, damage)))
    if policy is None:
        return
    whole = policy_of_resources()
    event("taken")
    bound = {one.name for one in policy.interfaces}
    for judged in EVERY_PACKET:
        packet = judged.packet
        if packet.interface in bound and evaluate(policy, packet).verdict is Policy.ACCEPT:
            assert evaluate(whole, packet).verdict is Policy.ACCEPT, packet


@examples(50)
@given(draws())
def test_what_is_written_is_read_again(draws: Draws) -> None:
    """A document that was written makes the very objects that it was written from, ids of rules included."""
    snapshot = written(noted_snapshot(draws, most_rules=5))
    assert written(snapshot) == snapshot


@example("\x85")
@example("a \u2028 b\n\u2029")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_survives(text: str) -> None:
    """Names, descriptions and tags come back letter by letter, whatever YAML would make of them unquoted."""
    group = {"GroupId": "sg-1", "GroupName": text, "Tags": [{"Key": text, "Value": text}]}
    snapshot = imported([{"SecurityGroups": [group]}]).snapshot
    (found,) = written(snapshot).security_groups
    assert (found.name, found.tags) == (text, ((text, text),))
