"""Documents that are read again while some have changed come to what they come to when read at first."""

from __future__ import annotations

from hypothesis import event, given

from sgagent.core.errors import DocumentError, Problem
from sgagent.core.memo import Memo
from sgagent.core.model import SecurityGroup, Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.draws import Draws
from tests.strategies import draws

READINGS = 8
LIMITS = Limits(rules=4, addresses=8, problems=3)

RULE = """{direction: ingress, policy: accept, protocol: tcp, port_range: 80, authorization_object: %s}"""
CONTENTS = (
    "version: 1",
    "version: 1\nsecurity_groups: [{security_group_id: sg-a, member_addresses: [10.0.0.1, 10.0.0.2]}]",
    "version: 1\nsecurity_groups: [{security_group_id: sg-a, member_addresses: [10.0.0.1]}]",
    f"version: 1\nsecurity_groups: [{{security_group_id: sg-b, rules: [{RULE % 'sg-a'}, {RULE % 'sg-a'}]}}]",
    f"version: 1\nsecurity_groups:\n- {{security_group_id: sg-c, rules: [{RULE % '10.1.2.3/24'}]}}",
    f"version: 1\nsecurity_groups:\n- {{security_group_id: sg-d, rules: [{RULE % '10.0.0.0/33'}]}}",
    "version: 1\nprefix_lists: [{prefix_list_id: pl-a, address_family: ipv4, entries: [10.0.0.0/8]}]",
    "version: 1\nnetwork_interfaces: [{network_interface_id: eni-a, mac_address: 00:16:3e:00:00:01}]",
    "version: 1\nnetwork_interfaces: [{network_interface_id: eni-b, mac_address: 00:16:3e:00:00:01}]",
    """{"version": 1, "security_groups": [
        {"security_group_id": "sg-f", "member_addresses": ["10.0.0.2", "10.0.0.1"]},
        {"security_group_id": "sg-g", "member_addresses": ["10.0.0.2", "10.0.0.1"], "rules": [
        {"rule_id": "sgr-1",
         "direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "sg-f"},
        {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "sg-g"}]}]}""",
    """{"version": 1,
        "network_interfaces": [{"network_interface_id": "eni-c", "addresses": ["10.0.0.2", "10.0.0.1"]}],
        "security_groups": [{"security_group_id": "sg-g", "rules": [
        {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "sg-g"},
        {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "10.1.0.1/8"},
        {"rule_id": "sgr-1",
         "direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "sg-f"}
        ]}]}""",
    """{"version": 1, "security_groups": [{"security_group_id": "sg-g", "rules": [
        {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "sg-g"},
        {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "10.0.0.1"}
        ], "member_addresses": ["10.0.0.2", "10.0.0.1/33"]}]}""",
    '{"SecurityGroups": {"SecurityGroup": [{"SecurityGroupId": "sg-e", "SecurityGroupType": "normal"}]}}',
    '{"SecurityGroupId": "sg-e", "InnerAccessPolicy": "Accept", "Permissions": {"Permission": []}}',
    "version: 2",
    "",
)
NAMES = ("a.yaml", "b.yaml", "c.yaml", "d.yaml")


def read(
    files: list[DocumentFile], memory: Memo | None, limits: Limits = LIMITS
) -> tuple[Snapshot | None, tuple[Problem, ...]]:
    """Return what files come to, be it errors."""
    try:
        return parse_documents(files, limits, memo=memory)
    except DocumentError as error:
        return None, error.problems


@given(draws())
def test_rereading_is_reading(draws: Draws) -> None:
    """Snapshot, version, warnings, errors and places are the same, whatever was read before."""
    memory, contents = Memo(), dict.fromkeys(NAMES, CONTENTS[0])
    for _ in range(READINGS):
        contents[draws.choice(NAMES)] = draws.choice(CONTENTS)
        names = draws.sample(NAMES, draws.choice((3, 4, 4, 4)))
        files = [DocumentFile(name, contents[name].encode()) for name in names]
        found = read(files, memory)
        assert repr(found) == repr(read(files, None))  # with all places
        event(f"can be enforced: {found[0] is not None}")


@given(draws())
def test_rereading_long_lists_is_reading(draws: Draws) -> None:
    """So it is where a file has many rules, some of them faulty or odd, and near the limits."""
    limits = Limits(rules=draws.choice((22, 100)), addresses=draws.choice((22, 100)), problems=3)
    memory, rules = Memo(), [drawn_rule(draws) for _ in range(20)]
    for _ in range(READINGS):
        place = draws.index(rules)
        match draws.choice(("other", "other", "more", "less", "turned", "blank")):
            case "other":
                rules[place] = drawn_rule(draws)
            case "more":
                rules.insert(place, drawn_rule(draws))
            case "less":
                rules[place : place + 2] = rules[place + 1 : place + 2] or rules[:1]
            case "turned":
                rules[place:] = reversed(rules[place:])
            case "blank":
                rules[place] = "\n" + rules[place]
        group = '{"security_group_id": "sg-a", "member_addresses": ["10.0.0.1"], "rules": [%s]}'
        content = '{"version": 1, "security_groups": [%s]}' % (group % draws.choice((",", ",\n")).join(rules))
        other = draws.choice((CONTENTS[0], CONTENTS[3]))
        files = [DocumentFile("a.yaml", other.encode()), DocumentFile("b.json", content.encode())]
        found = read(files, memory, limits)
        assert repr(found) == repr(read(files, None, limits))  # with all places
        event(f"can be enforced: {found[0] is not None}")


def drawn_rule(draws: Draws) -> str:
    """Return a rule as it is written, right most often; alike ones are one, and some are warned of."""
    ports = draws.choice(("22/22", "80/80", "1/65535", *("-1/-1",) * (draws.chance(20))))
    peer = draws.choice(("10.0.0.1", "sg-a", *("10.0.0.1/33",) * (draws.chance(1))))
    kind = f'"direction": "ingress", "policy": "accept", "protocol": "tcp", "port_range": "{ports}"'
    return f'{{{kind}, "priority": {draws.randint(1, 29)}, "authorization_object": "{peer}"}}'


def test_what_has_not_changed_is_the_very_same() -> None:
    """A file that says the same gives the same objects, so that all that follows is spared."""
    memory = Memo()
    files = [DocumentFile("a.yaml", CONTENTS[1].encode()), DocumentFile("b.yaml", CONTENTS[0].encode())]
    first, _ = parse_documents(files, Limits(), memo=memory)
    files[1] = DocumentFile("b.yaml", CONTENTS[3].encode())
    second, _ = parse_documents(files, Limits(), memo=memory)
    assert second.group_by_id["sg-a"] is first.group_by_id["sg-a"]
    assert second.version != first.version


def test_what_has_not_changed_in_a_file_is_the_very_same() -> None:
    """Of a file that changed, rules that stand where they stood and lists of members are the same objects."""
    group = '{"security_group_id": "sg-b", "member_addresses": ["10.0.0.1"], "rules": [\n%s]}'
    kind = '"direction": "egress", "policy": "drop", "protocol": "all"'
    rule = f'{{"rule_id": "%s", {kind}, "authorization_object": "%s"}}'
    other = rule % ("sgr-1", "::/0")
    memory = Memo()

    def reread(*rules: str, head: str = "") -> SecurityGroup:
        content = f'{{"version": 1, {head} "security_groups": [{group % ",".join(rules)}]}}'
        files = [DocumentFile("a.json", content.encode())]
        return parse_documents(files, Limits(), memo=memory)[0].security_groups[0]

    first = reread(other, rule % ("sgr-2", "10.0.0.0/8"))
    second = reread(other, rule % ("sgr-2", "10.0.0.1"))
    assert second.rules[0] is first.rules[0]
    assert second.rules[1] != first.rules[1]
    assert second.member_addresses is first.member_addresses
    moved = reread(other, rule % ("sgr-2", "10.0.0.1"), head="\n")
    assert moved.rules[0].origin.line == first.rules[0].origin.line + 1
    assert moved == second
    assert reread(other, head="\n").rules[0] is moved.rules[0]


def test_the_version_of_a_large_group_follows_its_rules() -> None:
    """What is remembered of its many rules shows in no version."""
    kind = '"direction": "egress", "policy": "drop", "protocol": "all"'
    rule = f'{{"rule_id": "sgr-%d", {kind}, "authorization_object": "%s"}}'
    memory = Memo()
    versions: list[str] = []
    for peers in (["::/0"] * 150, ["::/0"] * 149 + ["10.0.0.0/8"], ["::/0"] * 150, ["::/0"] * 120):
        rules = "\n" * len(versions) + ",\n".join(rule % (number, peer) for number, peer in enumerate(peers))
        content = (
            f'{{"version": 1, "security_groups": [{{"security_group_id": "sg-b", "rules": [{rules}]}}]}}'
        )
        files = [DocumentFile("a.json", content.encode())]
        versions.append(parse_documents(files, Limits(), memo=memory)[0].version)
        assert versions[-1] == parse_documents(files, Limits())[0].version
    assert versions[0] == versions[2]
    assert len(set(versions)) == 3
