"""Messages about documents: the line of the key, the key, what was found and what to write instead."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sgagent.cli.main import main

DOCUMENT = """\
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - rule_id: sgr-1
        description: the rule that is changed
        direction: ingress
        policy: accept
        protocol: tcp
        port_range: 443
        authorization_object: 192.0.2.0/24
  - security_group_id: sg-database
  - security_group_id: web
    member_addresses: [10.0.0.7]
prefix_lists:
  - {prefix_list_id: pl-office, address_family: ipv4, entries: [192.0.2.0/24]}
port_lists:
  - {port_list_id: prl-dns, entries: [53]}
"""
OBJECT = "security_groups[0].rules[0].authorization_object"


@dataclass(frozen=True)
class Case:
    """A change of the document, and what is said about it."""

    name: str
    old: str
    new: str
    line: int
    path: str
    message: str
    remedy: str
    value: str | None
    severity: str = "error"


def about_object(
    name: str, value: str, message: str, remedy: str, *, severity: str = "error", line: int = 11
) -> Case:
    """Return a case of the rule's object."""
    return Case(name, "192.0.2.0/24\n", f"'{value}'\n", line, OBJECT, message, remedy, value, severity)


RANGE = "a range of addresses"
FORMS = "an address, a CIDR, any, sg-…, account/sg-…, pl-…, dns:… or a group's id in these documents"
NO_OBJECT = "not an address, and no security group of the documents has this id"
NO_PREFIX = "a host name without dns: before it"
NAME_FORM = "a whole name like dns:mirror.example.org"
UNKNOWN = "the security group is not in the definitions, so the rule matches nothing"
ADD = "add the security group to the definitions, or correct the id"

CASES = (
    about_object("an id without sg-", "database", NO_OBJECT, "did you mean sg-database?"),
    about_object("a plain word", "nonsense", NO_OBJECT, FORMS),
    about_object("an id in capitals", "WEB", NO_OBJECT, "did you mean web?"),
    about_object("a number out of range", "10.0.0.300", "not an address", FORMS),
    about_object(
        "a range of addresses", "10.0.0.1-10.0.0.9", RANGE, "the CIDRs that it is made of, as a list"
    ),
    about_object("a netmask", "10.0.0.0/255.0.0.0", "not an address", FORMS),
    about_object("an address with a letter", "2001:db8::xyz", "not an address", FORMS),
    about_object("a host name", "www.example.com", NO_PREFIX, "dns:www.example.com"),
    about_object("a host name with a dot at its end", "example.com.", NO_PREFIX, "dns:example.com."),
    about_object("a wildcard", "*.example.com", NO_PREFIX, NAME_FORM),
    about_object(
        "a wildcard as a name",
        "dns:*.example.com",
        "a wildcard; the DNS has no list of the names that it stands for",
        NAME_FORM,
    ),
    about_object(
        "an address as a name", "dns:2001:db8::1", "an address, which needs no name server", "2001:db8::1"
    ),
    about_object(
        "a name with a port",
        "dns:www.example.com:443",
        "a host name with a port or path",
        "the name alone, like dns:mirror.example.org",
    ),
    about_object(
        "a single label",
        "dns:mirror",
        "not fully qualified: each host would look it up in a domain of its own",
        NAME_FORM,
    ),
    about_object(
        "an empty name",
        "dns:",
        "not fully qualified: each host would look it up in a domain of its own",
        NAME_FORM,
    ),
    about_object("a name with an empty label", "dns:www..example.com", "not a host name", NAME_FORM),
    about_object("a name with blanks", "dns:www example.com", "not a host name", NAME_FORM),
    about_object("a label of 64 letters", f"dns:{'a' * 64}.example.com", "not a host name", NAME_FORM),
    about_object("a name of 254 letters", f"dns:{'abc.' * 63}de", "not a host name", NAME_FORM),
    about_object("two letters swapped", "sg-wbe", UNKNOWN, f"did you mean sg-web? Otherwise {ADD}"),
    about_object("a letter too few", "sg-databse", UNKNOWN, f"did you mean sg-database? Otherwise {ADD}"),
    about_object("a letter too many", "sg-webb", UNKNOWN, f"did you mean sg-web? Otherwise {ADD}"),
    about_object(
        "a mistyped list",
        "pl-ofice",
        "the prefix list is not in the definitions, so the rule matches nothing",
        "did you mean pl-office? Otherwise add the prefix list to the definitions, or correct the id",
    ),
    about_object("a foreign group", "sg-partner", UNKNOWN, ADD, severity="warning"),
    about_object(
        "a group of another account",
        "1609982529920000/sg-wbe",
        "the security group is not in the definitions, so the rule matches nothing",
        ADD,
        severity="warning",
    ),
    Case(
        "a mistyped port list",
        "port_range: 443",
        "port_list_id: prl-dsn",
        10,
        "security_groups[0].rules[0].port_list_id",
        "the port list is not in the definitions, so the rule matches nothing",
        "did you mean prl-dns? Otherwise add the port list to the definitions, or correct the id",
        "prl-dsn",
    ),
    Case(
        "a mistyped group of an interface",
        "  - {prefix_list_id: pl-office, address_family: ipv4, entries: [192.0.2.0/24]}\n",
        "  - {prefix_list_id: pl-office, address_family: ipv4, entries: [192.0.2.0/24]}\n"
        "network_interfaces:\n  - network_interface_id: eni-1\n    security_group_ids: [sg-wbe]\n",
        19,
        "network_interfaces[0].security_group_ids[0]",
        "a security group of the interface is not in the definitions",
        "did you mean sg-web? Otherwise add the group, or detach it from the interface",
        "sg-wbe",
    ),
    *(
        Case(
            f"an id that reads as {reading}",
            "security_group_id: web\n",
            f"security_group_id: '{value}'\n",
            13,
            "security_groups[2].security_group_id",
            f"a rule would read this id as {reading}",
            "another id, like sg-web",
            value,
        )
        for value, reading in (
            ("10.0.0.1", "an address"),
            ("2001:db8::1", "an address"),
            ("pl-web", "a prefix list"),
            ("any", "every address"),
            ("ANY", "every address"),
            ("dns:web", "a host name"),
        )
    ),
)


RULE = "security_groups[0].rules[0]"
PORT_FORMS = "443, 443/443, 8000-8100 or -1/-1, from 1 to 65535"

# fmt: off
FORM = (
    Case("a word of other firewalls", "policy: accept", "action: allow", 8, f"{RULE}.action", "unknown field",
         "did you mean policy?", "allow"),
    Case("a list for one value", "direction: ingress", "direction: [ingress]", 7, f"{RULE}.direction",
         "expected one word, found a list", "one of ingress, egress", None),
    Case("an unknown word", "policy: accept", "policy: permit", 8, f"{RULE}.policy",
         "not one of the allowed words", "one of accept, drop, allow, deny", "permit"),
    Case("no ports", "        port_range: 443\n", "", 5, RULE, "a tcp rule needs a port range or a port list",
         PORT_FORMS, None),
    Case("a port out of range", "port_range: 443", "port_range: 70000", 10, f"{RULE}.port_range",
         "the port is out of range", f"{PORT_FORMS}; ICMP has -1/-1", "70000"),
    Case("ports the other way round", "port_range: 443", "port_range: 443-80", 10, f"{RULE}.port_range",
         "the first port is greater than the last", "80/443", "443-80"),
    Case("ports of a protocol without", "protocol: tcp", "protocol: gre", 10, f"{RULE}.port_range",
         "gre has no ports", "remove the field, or write -1/-1", "443"),
    Case("a priority of 0", "description: the rule that is changed", "priority: 0", 6, f"{RULE}.priority",
         "not a priority", "a whole number from 1, the most urgent, to 100", "0"),
    Case("a mapped address", "192.0.2.0/24\n", "'::ffff:192.0.2.1'\n", 11, OBJECT,
         "an IPv4-mapped IPv6 address", "write the IPv4 address", "::ffff:192.0.2.1"),
    Case("a zone", "192.0.2.0/24\n", "'fe80::1%eth0'\n", 11, OBJECT, "an address can't have a zone",
         "remove % and what follows", "fe80::1%eth0"),
    Case("host bits of a member", "[10.0.0.7]", "[10.0.0.7/24]", 14, "security_groups[2].member_addresses[0]",
         "host bits are set in a member's address",
         "the address alone, or 10.0.0.0/24 if the whole network is delegated to it", "10.0.0.7/24"),
    Case("a field twice", "policy: accept", "policy: accept\n        policy: drop", 9, f"{RULE}.policy",
         "the field is given twice in one mapping", "one of the two", "policy"),
    Case("an id twice", "sg-database", "sg-web", 12, "security_groups[1].security_group_id",
         "the security_group_id is already used by FILE:3: security_groups[0]",
         "use another id, or remove one of the two", "sg-web"),
    Case("another version", "version: 1", "version: 2", 1, "version",
         "this sgagent does not know this version of the format", "1", "2"),
    Case("a quote that is missing", "description: the", "description: 'the", 6, "",
         "not YAML: column 22: this quoted text does not end", "add the closing quote", None),
    Case("a list that is not closed", "entries: [53]", "entries: [53", 18, "",
         "not YAML: column 38: this list is not closed", "add the missing comma or ]", None),
    Case("a value that is missing", "entries: [53]", "entries: [,]", 18, "",
         "not YAML: column 39: expected a value, found the end of the text or one of ] } ,",
         "write the value, in quotes if it begins so, or close the brackets before", None),
    Case("a tab", "        port_range", "\tport_range", 10, "",
         "column 1: YAML allows no tab for indentation", "indent with spaces", None),
)
# fmt: on


def checked(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, object]]]:
    """Return the exit code of check, and the problems."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    code = main(["check", str(path), "--json"])
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["problems"]
    return code, found


@pytest.mark.parametrize("case", (*CASES, *FORM), ids=lambda case: case.name)
def test_what_is_wrong(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The problem, with the line of the key, the value, what was expected and what to write."""
    assert DOCUMENT.count(case.old) == 1
    code, problems = checked(tmp_path, DOCUMENT.replace(case.old, case.new), capsys)
    (problem,) = [one for one in problems if one["code"] != "missing_field"]
    assert {**problem, "file": "", "code": ""} == {
        "severity": case.severity,
        "code": "",
        "file": "",
        "line": case.line,
        "path": case.path,
        "message": case.message.replace("FILE", str(tmp_path / "policy.yaml")),
        "value": case.value,
        "remedy": case.remedy,
    }
    assert code == (2 if case.severity == "error" else 0)


def test_a_group_is_named_by_whatever_id_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An id without ``sg-`` is understood where a group of the documents has it, in any file of them."""
    groups = tmp_path / "groups.d"
    groups.mkdir()
    head, _, web = DOCUMENT.partition("  - security_group_id: web\n")
    head, web = head.replace("192.0.2.0/24\n", "web\n"), web.replace("    member_addresses: [10.0.0.7]\n", "")
    (groups / "a.yaml").write_text(head + web)
    assert main(["check", str(groups)]) == 2
    (groups / "b.yaml").write_text(
        "version: 1\nsecurity_groups:\n  - {security_group_id: web, member_addresses: [10.0.0.7]}\n"
    )
    assert main(["check", str(groups)]) == 0
    capsys.readouterr()
    sent = ["--destination", "10.0.0.11", "--protocol", "tcp", "--port", "443", "--interface", "eth0=sg-web"]
    for source, code in (("10.0.0.7", 0), ("10.0.0.8", 1)):
        assert main(["explain", "ingress", "--source", source, *sent, "--exit-code", str(groups)]) == code


def test_an_unreadable_file_makes_no_id_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The group may be in that file; its own error is the only one."""
    (tmp_path / "a.yaml").write_text(DOCUMENT.replace("192.0.2.0/24\n", "elsewhere\n"))
    (tmp_path / "b.yaml").write_text("security_groups: [")
    assert main(["check", "--json", str(tmp_path)]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["file"].endswith("b.yaml")


def test_a_drop_rule_with_a_wrong_id_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no unknown object, too."""
    text = DOCUMENT.replace("policy: accept", "policy: drop").replace("192.0.2.0/24\n", "elsewhere\n")
    code, (problem,) = checked(tmp_path, text, capsys)
    assert (code, problem["code"], problem["line"]) == (2, "bad_address", 11)


@pytest.mark.parametrize(
    ("defined", "named"),
    (
        ("sg-web-1", "sg-web-2"),
        ("sg-web-1", "sg-web-11"),
        ("sg-a", "sg-b"),
        ("sg-db", "sg-dc"),
        ("sg-webserver", "sg-appserver"),
        ("sg-internal", "sg-external"),
        ("sg-bp67acfmxazb4ph1", "sg-bp67acfmxazb4ph2"),
    ),
)
def test_a_group_of_somebody_else_stays_a_warning(
    defined: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids that differ in a number, in a short part, or in more than a slip are those of others (§5.3)."""
    text = DOCUMENT.replace("sg-database", defined).replace("192.0.2.0/24\n", f"{named}\n")
    code, (problem,) = checked(tmp_path, text, capsys)
    assert (code, problem["severity"], problem["code"]) == (0, "warning", "unknown_object")


def test_a_mistyped_group_stays_a_warning_where_it_is_enforced(tmp_path: Path) -> None:
    """Only check, sign and publish look at the whole; a host enforces the rest all the same (§8.2)."""
    path = tmp_path / "policy.yaml"
    path.write_text(DOCUMENT.replace("192.0.2.0/24\n", "sg-wbe\n"))
    binding = ["--interface", "eth0=sg-web", str(path)]
    assert main(["compile", "--dry-run", "--no-verify", *binding]) == 0
    assert main(["check", *binding]) == 2


@pytest.mark.one_python
def test_many_unknown_groups_among_many_are_looked_at_soon(tmp_path: Path) -> None:
    """To suggest ids costs no more where thousands are unknown: the work is bounded."""
    groups = "".join(f"  - security_group_id: sg-group-{number}\n" for number in range(3000))
    rules = "".join(
        f"      - {{direction: ingress, policy: accept, protocol: all, authorization_object: sg-other-{n}}}\n"
        for n in range(2000)
    )
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nsecurity_groups:\n{groups}    rules:\n{rules}")
    began = time.process_time()
    assert main(["check", str(path)]) == 0
    assert time.process_time() - began < 20


def problems_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """Return what check finds wrong."""
    assert main(["check", "--json", *map(str, arguments)]) == 2
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["problems"]
    return found


def test_check_shows_lines_beside_errors_of_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown object is at the line of its field, whatever else is wrong; so is an id that is taken."""
    path = tmp_path / "wrong.yaml"
    rule = """    - rule_id: r
      direction: ingress
      policy: drop
      protocol: {}
      authorization_object: {}
"""
    rules = rule.format("all", "sg-none") + rule.format("wrong", "any") + rule.format("wrong", "any")
    path.write_text(f"version: 1\nsecurity_groups:\n- security_group_id: sg-1\n  rules:\n{rules}")
    problems = problems_of(capsys, path)
    assert sorted((one["line"], one["code"]) for one in problems) == [
        (9, "unknown_object_in_drop"),
        (10, "duplicate_id"),
        (13, "bad_protocol"),
        (15, "duplicate_id"),
        (18, "bad_protocol"),
    ]


def test_check_names_the_object_that_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The item of a list, and the field that an API answer has."""
    native = tmp_path / "native.yaml"
    objects = "".join(f"      - {one}\n" for one in ("192.0.2.0/24", "pl-none", "1/sg-none"))
    native.write_text(
        "version: 1\nsecurity_groups:\n- security_group_id: sg-1\n  rules:\n    - direction: ingress\n"
        f"      policy: drop\n      protocol: all\n      authorization_object:\n{objects}"
    )
    rule = {"Direction": "egress", "IpProtocol": "ALL", "Policy": "Drop", "DestGroupId": "sg-none"}
    rule |= {"DestGroupOwnerAccount": "1", "SourceCidrIp": "", "Description": ""}
    answer = {"SecurityGroupId": "sg-2", "InnerAccessPolicy": "Drop", "Permissions": {"Permission": [rule]}}
    (tmp_path / "answer.json").write_text(json.dumps(answer, indent=0))
    problems = problems_of(capsys, tmp_path)
    assert {(one["line"], one["path"]) for one in problems if one["code"] == "unknown_object_in_drop"} == {
        (10, "security_groups[0].rules[0].authorization_object[1]"),
        (11, "security_groups[0].rules[0].authorization_object[2]"),
        (10, "Permissions.Permission[0].DestGroupId"),
    }


def test_warnings_name_the_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its line, as errors do; also of a rule that has ended."""
    rule = "    - direction: ingress\n      policy: accept\n      protocol: all\n"
    named = "      authorization_object:\n      - 10.0.0.0/8\n      - "
    ended = f"{rule}      expires: 2020-01-01T00:00:00Z\n{named}sg-none\n"
    path = tmp_path / "groups.yaml"
    path.write_text(
        "version: 1\nsecurity_groups:\n- security_group_id: sg-1\n  type: advanced\n  rules:\n"
        f"{rule}{named}sg-2\n{ended}- security_group_id: sg-2\n  rules:\n"
        f"{rule}      authorization_object: sg-2\n{rule}{named}sg-1\n"
    )
    found = problems_of(capsys, "--strict", path)
    assert {(one["code"], one["line"], one["path"].partition(".")[2]) for one in found} == {
        ("group_object_in_advanced", 11, "rules[0].authorization_object[1]"),
        ("expired_rule", 12, "rules[1].expires"),
        ("unknown_object_of_ended", 18, "rules[1].authorization_object[1]"),
        ("own_group", 24, "rules[0].authorization_object"),
        ("advanced_group_object", 30, "rules[1].authorization_object[1]"),
    }


def test_problems_name_the_item_whatever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group of an interface, also in an API answer; and a name in another spelling than messages have."""
    (tmp_path / "native.yaml").write_text(
        "version: 1\nsecurity_groups:\n- security_group_id: sg-1\n  rules:\n    - direction: ingress\n"
        "      policy: accept\n      protocol: all\n      authorization_object:\n"
        "      - 10.0.0.0/8\n      - DNS:Gone.EXAMPLE.\n      - dns:bücher.example\n"
        "network_interfaces:\n- network_interface_id: eni-1\n  addresses: [10.0.0.1]\n"
        "  security_group_ids:\n  - sg-1\n  - sg-none\n"
    )
    groups = {"SecurityGroupId": ["sg-1", "sg-gone"]}
    interface = {"NetworkInterfaceId": "eni-2", "PrivateIpAddress": "10.0.0.2", "SecurityGroupIds": groups}
    answer = {"NetworkInterfaceSets": {"NetworkInterfaceSet": [interface]}}
    (tmp_path / "answer.json").write_text(json.dumps(answer, indent=0))
    settings = tmp_path / "limits.toml"
    settings.write_text("[limits]\nnames = 1\n")
    problems = problems_of(capsys, "--config", settings, tmp_path)
    assert {(one["code"], one["line"], one["path"]) for one in problems if one["severity"] == "error"} == {
        ("too_many_names", 11, f"{OBJECT}[2]")
    }
    settings.write_text("")
    problems = problems_of(capsys, "--config", settings, tmp_path)
    assert {(one["line"], one["path"]) for one in problems if one["code"] == "dangling_attachment"} == {
        (17, "network_interfaces[0].security_group_ids[1]"),
        (10, "NetworkInterfaceSets.NetworkInterfaceSet[0].SecurityGroupIds.SecurityGroupId[1]"),
    }


@pytest.mark.parametrize("command", ("lint", "graph", "compile --dry-run"))
def test_others_name_the_item_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """With its line, on standard error."""
    path = tmp_path / "groups.yaml"
    path.write_text(
        "version: 1\nsecurity_groups:\n- security_group_id: sg-1\n  type: advanced\n  rules:\n"
        "  - direction: ingress\n    policy: accept\n    protocol: all\n"
        "    authorization_object:\n    - 10.0.0.0/8\n    - sg-1\n"
    )
    assert main([*command.split(), str(path)]) == 0
    assert f"{path}:11: {OBJECT}[1]: an advanced group has a group" in capsys.readouterr().err


def test_check_shows_the_line_of_a_hand_binding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of any other error: the file, the line and the path of the table."""
    settings, documents = tmp_path / "wrong.toml", tmp_path / "groups.yaml"
    documents.write_text(DOCUMENT)
    tables = ('"eth0"\nnetwork_interface_id = "eni-none"', '"eth1"\nsecurity_group_ids = ["sg-none"]')
    settings.write_text("".join(f"[[interface]]\nname = {table}\n" for table in tables))
    problems = problems_of(capsys, "--config", settings, documents)
    assert [(one["file"], one["line"], one["path"]) for one in problems] == [
        (str(settings), 1, "interface[0]"),
        (str(settings), 4, "interface[1]"),
    ]
