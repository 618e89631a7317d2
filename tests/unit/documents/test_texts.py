"""YAML and JSON texts, before they mean anything."""

from __future__ import annotations

import json

import pytest

from sgagent.core.errors import Problem
from sgagent.documents import Limits
from tests.unit.documents.reading import codes, document, refused, snapshot, the_group

GROUP = "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n"


def only(problems: tuple[Problem, ...]) -> Problem:
    """Return the one problem there is."""
    (problem,) = problems
    return problem


@pytest.mark.parametrize("name", ("A.JSON", "a.Json"))
def test_json_has_its_suffix_in_any_letter_case(name: str) -> None:
    """What is not JSON is refused by line, though YAML would take it."""
    problem = only(refused(GROUP, name=name))
    assert (problem.code, problem.origin.file, problem.origin.line) == ("syntax", name, 1)


@pytest.mark.parametrize("name", ("A.YAML", "A.YML"))
def test_yaml_has_its_suffix_in_any_letter_case(name: str) -> None:
    """It is read as YAML."""
    assert the_group(snapshot(GROUP, name=name)).security_group_id == "sg-1"


@pytest.mark.parametrize("account", ("1609982529920000", "0160998252992000", "99999999999999999999999999"))
def test_an_unquoted_account_keeps_every_digit(account: str) -> None:
    """Numeric account ids may stand unquoted, leading zeros and big ones too."""
    assert the_group(snapshot(f"{GROUP}    account_id: {account}\n")).account_id == account


@pytest.mark.parametrize("account", ("1.5", "1e3", "1.0e+3", "'1.5'"))
def test_a_fraction_is_no_account(account: str) -> None:
    """Another program may have written the account as a number, and rounded it."""
    problem = only(refused(f"{GROUP}    account_id: {account}\n"))
    place = "a.yaml:4: security_groups[0].account_id"
    assert str(problem) == (
        f"error: {place}: not an account id: {account.strip(chr(39))!r} (the digits of the account)"
    )


def test_a_number_in_json_keeps_every_digit() -> None:
    """JSON numbers beyond 64 bits are not rounded."""
    group = '{"security_group_id": "sg-1", "account_id": 123456789012345678901}'
    text = f'{{"version": 1, "security_groups": [{group}]}}'
    assert the_group(snapshot(text, name="a.json")).account_id == "123456789012345678901"


@pytest.mark.parametrize(
    "word", ("22:22", "yes", "no", "on", "off", "0755", "1_000", "2001-12-14", "0x10", "1.5", ".nan")
)
def test_plain_words_are_text_as_in_yaml_1_2(word: str) -> None:
    """Nothing is a sexagesimal number, a date, or a boolean but true and false."""
    assert the_group(snapshot(f"{GROUP}    name: {word}\n")).name == word


@pytest.mark.parametrize("word", ("true", "False", "null", "~", ""))
def test_booleans_and_null_are_no_text(word: str) -> None:
    """What YAML 1.2 takes for a boolean or null is of the wrong type for a name."""
    assert codes(refused(f"{GROUP}    name: {word}\n")) == ["wrong_type"]


def test_an_unquoted_mac_address_is_text() -> None:
    """52:54:00:12:34:56 is not a sexagesimal number."""
    text = "version: 1\nnetwork_interfaces: [{network_interface_id: eni-1, mac_address: 52:54:00:12:34:56}]"
    assert snapshot(text).network_interfaces[0].mac_address == "52:54:00:12:34:56"


@pytest.mark.parametrize("name", ("a.yaml", "a.json"))
def test_a_duplicate_key_is_an_error_with_its_line(name: str) -> None:
    """The second of two equal names is told, with line and path, in YAML and JSON alike."""
    text = """{"version": 1,
        "security_groups": [
        {"security_group_id": "sg-1",
        "name": "a",
        "name": "b"}]}"""
    problem = only(refused(text, name=name))
    assert (problem.code, problem.origin.line) == ("duplicate_key", 5)
    assert problem.origin.path == "security_groups[0].name"


def test_lines_are_told_for_yaml_and_json_alike() -> None:
    """A wrong value is found on the line that its name stands on."""
    wrong = '{\n"version": 1,\n"security_groups":\n[{"security_group_id": "sg-1",\n\n"type":\n"odd"}]}'
    for name in ("a.yaml", "a.json"):
        problem = only(refused(wrong, name=name))
        assert (problem.origin.line, problem.origin.path) == (6, "security_groups[0].type")


@pytest.mark.parametrize(
    ("text", "code"),
    (
        ("version: 1\n---\nversion: 1\n", "several_documents"),
        ("version: !!python/object/apply:os.system ['true']\n", "tag"),
        ("version: !foo 1\n", "tag"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "merge_key"),
        ("a: &a [*a]\n", "bad_alias"),
        ("a: *nowhere\n", "bad_alias"),
        ("? [a]\n: 1\n", "complex_key"),
        ("version: [1\n", "syntax"),
        ("version: 1\n\tname: x\n", "syntax"),
        ("", "empty_document"),
        ("# nothing\n", "empty_document"),
        ("---\n", "empty_document"),
        ("--- # nothing\n...\n", "empty_document"),
        ("[]", "empty_document"),
        ('a: "\\0"\n', "bad_character"),
        ("a: \0\n", "syntax"),
        (b"version: \xff\n", "not_utf8"),
        ("version: 1\n".encode("utf-16"), "not_utf8"),
    ),
)
def test_what_yaml_may_not_do(text: str | bytes, code: str) -> None:
    """Whatever could hide something in a YAML text is refused, and nothing is constructed."""
    assert codes(refused(text)) == [code]


@pytest.mark.parametrize(
    "text",
    (
        "{",
        "[1,]",
        '{"version": NaN}',
        "{'version': 1}",
        '{"version": 1} x',
        '{"version": 01}',
        '{"a": "\\x"}',
        '{"version": 1,}',
        "nul",
    ),
)
def test_what_is_not_json(text: str) -> None:
    """A file named .json is held to RFC 8259."""
    problem = only(refused(text, name="a.json"))
    assert (problem.code, problem.origin.line) == ("syntax", 1)


def test_half_a_surrogate_pair_is_refused() -> None:
    """JSON escapes can't smuggle in what is no text; whole pairs are fine."""
    assert codes(refused('{"version": 1, "x": "\\ud800"}', name="a.json")) == ["bad_character"]
    named = '{"version": 1, "security_groups": [{"security_group_id": "sg-1", "name": "\\ud83d\\ude00"}]}'
    assert the_group(snapshot(named, name="a.json")).name == "\U0001f600"


@pytest.mark.parametrize(
    ("text", "name"),
    (
        ('{\n\t"version": 1\n}\n', "stdin"),
        ("{version: 1}", "a.yaml"),
        ("\ufeffversion: 1\n".encode(), "a.yaml"),
        ("version: 1\n", "a.yaml"),
    ),
    ids=(
        "JSON with tabs in a file of any name",
        "YAML in flow style",
        "a byte order mark",
        "a version alone",
    ),
)
def test_a_legal_empty_document(text: str | bytes, name: str) -> None:
    """What begins as JSON is JSON if it is, else YAML; who wants no groups can say so."""
    assert snapshot(text, name=name).security_groups == ()


def test_anchors_stand_for_what_they_name() -> None:
    """An alias is as good as the value itself."""
    text = """
        version: 1
        security_groups:
          - {security_group_id: sg-1, member_addresses: &all [10.0.0.1, 10.0.0.2]}
          - {security_group_id: sg-2, member_addresses: *all}
        """
    first, second = snapshot(text).security_groups
    assert first.member_addresses == second.member_addresses != ()


def aliases(first: str, number: int, each: int) -> str:
    """Return a text in which each of many anchors stands for a list of the one before."""
    lines = [f"a0: &a0 [{first}]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * each)}]" for n in range(number)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "name", "code"),
    (
        ("[" * 100_000, "a.yaml", "too_deep"),
        ("[" * 100_000, "a.json", "too_deep"),
        ("- " * 5_000 + "x", "a.yaml", "too_deep"),
        ('{"a":' * 5_000, "a.json", "too_deep"),
        (aliases("x", 40, each=1), "a.yaml", "too_deep"),
        (aliases("x, x, x, x, x, x, x, x, x, x", 8, each=10), "a.yaml", "too_many_values"),
    ),
    ids=("YAML", "JSON", "block style", "mappings", "aliases", "a billion laughs"),
)
def test_depth_is_bounded(text: str, name: str, code: str) -> None:
    """No nesting reaches the stack, and aliases cost as much and nest as deep as what they stand for."""
    assert codes(refused(text, name=name)) == [code]


@pytest.mark.parametrize(
    ("limits", "code"),
    (
        (Limits(document_bytes=10), "too_large"),
        (Limits(rules=1), "too_many_rules"),
        (Limits(addresses=3), "too_many_addresses"),
    ),
)
def test_sizes_are_bounded(limits: Limits, code: str) -> None:
    """Limits of the configuration are errors, not slow machines (§8.1)."""
    rule = {"direction": "egress", "policy": "drop", "protocol": "all", "authorization_object": "::/0"}
    groups = [
        {"security_group_id": f"sg-{n}", "rules": [rule], "member_addresses": ["10.0.0.1"]} for n in range(2)
    ]
    assert codes(refused(document(security_groups=groups), limits=limits)) == [code]


def test_only_the_number_is_told_of_many_problems() -> None:
    """A hostile document can't fill the log."""
    problems = refused(json.dumps({f"x{n}": 1 for n in range(50)}), limits=Limits(problems=10))
    assert len(problems) == 11
    assert (problems[-1].code, problems[-1].message) == ("more_problems", "41 more like these")


def test_no_document_at_all_is_an_error() -> None:
    """An emptied directory does not silently take the policy away."""
    assert codes(refused()) == ["no_documents"]


def test_hostile_values_reach_no_terminal() -> None:
    """A problem's line holds no control or bidirectional characters."""
    text = str(only(refused('version: 1\n"\\e[31m\\u202Ex": 1\n')))
    assert text.isprintable()


@pytest.mark.parametrize(
    ("text", "line", "column"),
    (
        ("version: 1\n\tname: x\n", 2, 1),
        ("version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n  \t name: x\n", 4, 3),
        ("version: 1\nport_lists:\n\t- port_list_id: prl-1\n", 3, 1),
        ("version: 1\nport_lists: [\n {port_list_id: prl-1},\n]\n\tx: 1\n", 5, 1),
        ("version: 1\nport_lists:\n-\tport_list_id: prl-1\n", 3, 2),
    ),
)
def test_a_tab_for_indentation_is_told(text: str, line: int, column: int) -> None:
    """Nobody sees the difference, so the message names the tab and its place."""
    (problem,) = refused(text)
    assert (problem.code, problem.origin.line) == ("syntax", line)
    assert problem.message == f"column {column}: YAML allows no tab for indentation"
