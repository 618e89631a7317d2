"""The command line: what is printed where, and the exit codes that scripts rely on."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sgagent import __version__
from sgagent.cli.main import main
from tests.unit.cli.runner import Run, runner

WEB = """\
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - rule_id: sgr-https
        direction: ingress
        policy: accept
        protocol: tcp
        port_range: 443/443
        authorization_object: 0.0.0.0/0
      - rule_id: sgr-wide
        direction: ingress
        policy: accept
        priority: 50
        protocol: all
        authorization_object: 198.51.100.0/24
      - rule_id: sgr-bad
        direction: ingress
        policy: drop
        protocol: tcp
        port_range: 443
        authorization_object: 198.51.100.66
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its exit code, output and errors."""
    return runner(capsys)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """Return the path of a good document."""
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


def explain(run: Run, web: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the answer of an explain against the document."""
    code, output, _ = run(
        "explain",
        "ingress",
        "--json",
        "--definitions",
        web,
        "--interface",
        "eth0=sg-web",
        "--destination",
        "10.0.0.11",
        *arguments,
    )
    return code, json.loads(output)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the package's."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sgagent {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    (
        [],
        ["no-such-command"],
        ["compile", "--no-such-option"],
        ["compile", "--dry"],
        ["explain", "sideways", "--source", "10.0.0.1", "--destination", "10.0.0.2", "--protocol", "tcp"],
    ),
)
def test_wrong_use_is_2_and_one_line(run: Run, arguments: list[str]) -> None:
    """Wrong use says what is wrong on standard error and prints no result; options are not abbreviated."""
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("sgagent: ")
    assert errors.count("\n") == 1


def test_a_named_configuration_that_is_not_there_is_wrong_use(run: Run, tmp_path: Path) -> None:
    """Only the default file may be missing; the option stands before or after the command."""
    missing = tmp_path / "missing.toml"
    for arguments in (["--config", missing, "check"], ["check", "--config", missing]):
        code, output, errors = run(*arguments)
        assert (code, output) == (2, "")
        assert str(missing) in errors


def test_missing_definitions_are_wrong_use_and_a_missing_source_is_4(run: Run, tmp_path: Path) -> None:
    """What the command line names is the user's; what the configuration names is a source out of reach."""
    missing = tmp_path / "missing"
    assert run("compile", "--dry-run", "--definitions", missing)[0] == 2
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(f'[source]\npath = "{missing}"\n')
    assert run("compile", "--dry-run", "--config", configuration)[0] == 4


@pytest.mark.parametrize("argument", ("eth0", "eth0=sg-web,", "=sg-web", "a/b=sg-web", "lo=sg-web"))
def test_a_binding_that_is_none_is_refused(run: Run, web: Path, argument: str) -> None:
    """--interface is NAME=GROUP[,GROUP…], and loopback is never judged (§2.3)."""
    code, output, errors = run("compile", "--dry-run", "--definitions", web, "--interface", argument)
    assert (code, output) == (2, "")
    assert argument.partition("=")[0] in errors


def test_explain_names_the_rule_and_what_it_shadows(run: Run, web: Path) -> None:
    """The contract's object: the verdict, the step, the rule, and every other rule that matches."""
    code, answer = explain(
        run, web, "--source", "198.51.100.66", "--protocol", "TCP", "--port", 443, "--exit-code"
    )
    assert code == 1
    assert answer == {
        "verdict": "drop",
        "decided_by": "rule",
        "rule_id": "sgr-bad",
        "security_group_id": "sg-web",
        "priority": 1,
        "interface": "eth0",
        "shadowed": ["sgr-https", "sgr-wide"],
    }


@pytest.mark.parametrize(
    ("arguments", "decision"),
    (
        (["--source", "203.0.113.9", "--protocol", "tcp", "--port", 22], ("drop", "default", [])),
        (["--source", "198.51.100.9", "--protocol", "253"], ("accept", "rule", [])),
        (
            ["--source", "198.51.100.9", "--protocol", "udp", "--source-port", 67, "--port", 68],
            ("accept", "always", ["sgr-wide"]),
        ),
        (["--source", "198.51.100.9", "--protocol", "icmpv6"], ("drop", "invalid", ["sgr-wide"])),
    ),
)
def test_explain_says_which_step_decided(
    run: Run, web: Path, arguments: list[object], decision: tuple[str, str, list[str]]
) -> None:
    """Rules that match are shown whatever step decided."""
    code, answer = explain(run, web, *arguments)
    assert code == 0
    assert (answer["verdict"], answer["decided_by"], answer["shadowed"]) == decision


def test_check_finds_one_address_on_two_interfaces_anywhere(run: Run, tmp_path: Path) -> None:
    """Where documents are made, as on the host that could not tell the interfaces apart (§8.3)."""
    path = tmp_path / "twice.yaml"
    path.write_text(
        "version: 1\nnetwork_interfaces:\n"
        "- {network_interface_id: eni-1, addresses: [192.0.2.5, 192.0.2.6]}\n"
        "- {network_interface_id: eni-2, addresses: [192.0.2.6]}\n"
    )
    code, output, errors = run("check", "--definitions", path)
    assert (code, errors) == (2, "")
    assert f"{path}:4: network_interfaces[1]: eni-2 has an address that eni-1 has too" in output
    code, output, _ = run("check", "--definitions", path, "--json")
    assert (code, [one["code"] for one in json.loads(output)["problems"]]) == (2, ["duplicate_address"])
    path.write_text(path.read_text().replace("eni-1,", "eni-1, vpc_id: vpc-1,"))
    assert run("check", "--definitions", path)[0] == 2
    path.write_text(path.read_text().replace("eni-2,", "eni-2, vpc_id: vpc-2,"))
    assert run("check", "--definitions", path)[0] == 0


def test_explain_says_how_the_platform_list_is_switched_off(run: Run, web: Path, tmp_path: Path) -> None:
    """What passes to the metadata service by default is told apart from what a host needs (§7.1, §7.3)."""
    to = ["--source", "10.0.0.11", "--protocol", "udp", "--definitions", web, "--interface", "eth0=sg-web"]
    metadata = ["explain", "egress", *to, "--destination", "100.100.100.200", "--port", 53]
    _, text, _ = run(*metadata)
    assert "by always: the configuration's platform list" in text
    assert "platform = [] switches that off" in text
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text("platform = []\n")
    _, text, _ = run(*metadata, "--config", configuration)
    assert "by default" in text
    _, text, _ = run("explain", "egress", *to, "--destination", "10.0.0.1", "--source-port", 68, "--port", 67)
    assert "by always: a host needs it" in text
    assert "platform" not in text


def test_explain_says_that_an_invalid_packet_is_evaluated(run: Run, web: Path, tmp_path: Path) -> None:
    """Where the configuration says so of the link, by whatever it is bound (§6.6)."""
    configuration = tmp_path / "sgagent.toml"
    table = '[[interface]]\nname = "{}"\nsecurity_group_ids = []\ninvalid = "evaluate"\n'
    answer = [
        *("explain", "ingress", "--source", "192.0.2.9", "--destination", "10.0.0.11", "--protocol", "icmp"),
        *("--icmp-type", 0, "--definitions", web, "--interface", "eth0=sg-web", "--config", configuration),
    ]
    for name, decided_by in (("eth0", "default"), ("eth1", "invalid")):
        configuration.write_text(table.format(name))
        code, output, _ = run(*answer)
        remark = "  connection tracking calls it invalid; eth0 evaluates such packets"
        assert code == 0
        assert (remark in output.splitlines()) is (decided_by == "default"), output
        assert json.loads(run(*answer, "--json")[1])["decided_by"] == decided_by


def test_explain_wants_to_know_which_of_several_interfaces(run: Run, web: Path) -> None:
    """With several bound interfaces it is wrong use not to say which."""
    packet = ["--source", "203.0.113.9", "--destination", "10.0.0.11", "--protocol", "tcp", "--port", "443"]
    bindings = ["--definitions", web, "--interface", "eth0=sg-web", "--interface", "eth1="]
    assert run("explain", "ingress", *packet, *bindings)[0] == 2
    code, output, _ = run("explain", "ingress", *packet, *bindings, "--on", "eth1", "--json")
    assert (code, json.loads(output)["decided_by"]) == (0, "default")
    code, output, errors = run("explain", "ingress", *packet, *bindings, "--on", "eth9", "--json")
    assert (code, json.loads(output)["decided_by"]) == (0, "unbound")
    assert errors == "warning: this host has no interface eth9; on one that is not bound everything passes\n"
    code, output, errors = run("explain", "ingress", *packet, *bindings, "--on", "lo", "--json")
    assert (code, json.loads(output)["decided_by"], errors) == (0, "unbound", "")


def test_two_patterns_that_match_one_link_are_refused(run: Run, web: Path) -> None:
    """Also where no such link exists; one bound by name is before a pattern (§12.5)."""
    packet = ["--source", "203.0.113.9", "--destination", "10.0.0.11", "--protocol", "tcp", "--port", "443"]
    bindings = ["--definitions", web, "--interface", "br-*=sg-web", "--on", "br-7"]
    code, _, errors = run("explain", "ingress", *packet, *bindings, "--interface", "br-7*=sg-web")
    assert (code, "the patterns br-7* and br-* match the same links" in errors) == (2, True)
    by_name = run("explain", "ingress", *packet, *bindings, "--interface", "br-7=")
    assert (by_name[0], by_name[1].startswith("drop"), by_name[2]) == (0, True, "")


def test_explain_names_the_pattern_that_binds_a_link(run: Run, web: Path) -> None:
    """Beside the link's own name, and for no link that is bound by that (§12.5)."""
    packet = ["--source", "203.0.113.9", "--destination", "10.0.0.11", "--protocol", "tcp", "--port", "443"]
    bindings = ["--definitions", web, "--interface", "br-*=sg-web", "--on", "br-7"]
    asked = ["explain", "ingress", *packet, *bindings]
    assert " on br-7 (bound by br-*)\n" in run(*asked)[1]
    answer = json.loads(run(*asked, "--json")[1])
    assert (answer["interface"], answer["bound_by"]) == ("br-7", "br-*")
    assert "bound by" not in run(*asked, "--interface", "br-7=")[1]


@pytest.mark.parametrize(
    "arguments",
    (
        ["--source", "203.0.113.9", "--protocol", "tcp"],
        ["--source", "203.0.113.9", "--protocol", "icmp", "--port", "1"],
        ["--source", "203.0.113.9", "--protocol", "300"],
        ["--source", "nowhere", "--protocol", "gre"],
        ["--source", "2001:db8::1", "--protocol", "gre"],
        ["--source", "203.0.113.9", "--protocol", "tcp", "--port", "65536"],
        ["--source", "203.0.113.9", "--protocol", "icmp", "--icmp-type", "256"],
        ["--source", "203.0.113.9", "--protocol", "tcp", "--port", "443", "--icmp-type", "8"],
        ["--source", "203.0.113.9", "--protocol", "132", "--icmp-type", "8"],
        ["--source", "203.0.113.9", "--protocol", "icmp", "--hop-limit", "-1"],
    ),
)
def test_explain_refuses_packets_that_cannot_be(run: Run, web: Path, arguments: list[str]) -> None:
    """Ports belong to TCP and UDP, and both ends to one family."""
    common = ["--definitions", web, "--interface", "eth0=sg-web", "--destination", "10.0.0.11"]
    assert run("explain", "ingress", *common, *arguments)[0] == 2


@pytest.mark.parametrize(
    ("source", "reason"),
    (
        ("fe80::1%eth0", "a packet has no zone: leave out %eth0"),
        ("::ffff:10.0.0.9", "on the wire this is 10.0.0.9: ask about that address"),
    ),
)
def test_explain_refuses_addresses_that_are_on_no_wire(run: Run, web: Path, source: str, reason: str) -> None:
    """As documents do (§8.1)."""
    packet = ["--source", source, "--destination", "2001:db8::11", "--protocol", "tcp", "--port", "443"]
    code, _, errors = run("explain", "ingress", *packet, "--definitions", web, "--interface", "eth0=sg-web")
    assert (code, errors) == (2, f"sgagent: --source {source}: {reason}\n")


def test_check_tells_every_error_at_once_those_of_meaning_too(run: Run, tmp_path: Path) -> None:
    """A wrong port and an unknown object in another rule are told together, each with its line (§8.1)."""
    path = tmp_path / "wrong.yaml"
    path.write_text(WEB.replace("198.51.100.66", "pl-none").replace("443/443", "99999"))
    code, output, errors = run("check", "--definitions", path)
    assert (code, errors) == (2, "")
    assert output.endswith("\nrefused: 2 errors, 0 warnings\n")
    assert f"{path}:9: " in output
    assert "unknown_object_in_drop" not in output
    assert "pl-none" in output
    code, output, _ = run("check", "--json", "--definitions", path)
    found = json.loads(output)
    assert (code, found["ok"]) == (2, False)
    assert {one["code"] for one in found["problems"]} == {"port_out_of_range", "unknown_object_in_drop"}


def test_a_ruleset_with_nul_is_none(run: Run, web: Path, tmp_path: Path) -> None:
    """The library of nft would end the text there."""
    ruleset = tmp_path / "ruleset"
    ruleset.write_bytes(b"table inet sgagent { }\n\0\nadd table inet other\n")
    code, output, errors = run("verify", "--ruleset", ruleset, "--definitions", web)
    assert (code, output) == (2, "")
    assert errors.endswith("expected a ruleset of at most 256 MiB, without NUL characters\n")


@pytest.mark.parametrize(
    "listing",
    (
        '{"nftables": [{"chain": 5}]}',
        '{"nftables": [{"rule": {"family": "inet", "table": "sgagent"}}]}',
        '{"nftables": [{"chain": {"family": "inet", "table": "sgagent"}}]}',
        '{"nftables": [{"rule": {"family": "inet", "table": "sgagent", "chain": "a", "expr": 1}}]}',
        '{"nftables": [{"rule": {"family": "inet", "table": "sgagent", "chain": [], "expr": []}}]}',
    ),
)
@pytest.mark.parametrize("options", ((), ("--compare",)))
def test_json_that_is_no_listing_is_wrong_use(
    run: Run, web: Path, tmp_path: Path, listing: str, options: tuple[str, ...]
) -> None:
    """Whatever is missing in it, or of another type."""
    ruleset = tmp_path / "ruleset.json"
    ruleset.write_text(listing)
    code, output, errors = run("verify", "--ruleset", ruleset, *options, web)
    assert (code, output) == (2, "")
    assert f"{ruleset}: nft does not take this ruleset: " in errors


def test_a_ruleset_without_our_table_is_said_to_be_none(run: Run, web: Path, tmp_path: Path) -> None:
    """It is refuted, as nothing is filtered, and --compare is what was meant."""
    ruleset = tmp_path / "ruleset.json"
    ruleset.write_text('{"nftables": [{"table": {"family": "inet", "name": "filter"}}]}')
    code, _, errors = run("verify", "--ruleset", ruleset, "--interface", "eth0=sg-web", web)
    assert code == 1
    assert errors == (
        f"warning: {ruleset} has no table inet sgagent with chains (--compare reads other tables)\n"
    )
    assert run("verify", "--compare", "--ruleset", ruleset, "--interface", "eth0=sg-web", web)[2] == ""


def test_a_document_that_can_not_be_read_is_an_error_in_the_list(run: Run, tmp_path: Path) -> None:
    """As a pipe is, or a link without a target: scripts read one object."""
    path = tmp_path / "loop.yaml"
    path.symlink_to(path.name)
    for place in (tmp_path, path):
        code, output, errors = run("check", "--json", place)
        (problem,) = json.loads(output)["problems"]
        assert (code, errors) == (2, "")
        assert (problem["code"], problem["file"]) == ("unreadable", str(path))
        assert problem["message"] == "it can't be read: too many levels of symbolic links"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read_is_an_error_in_the_list(run: Run, tmp_path: Path) -> None:
    """Also where nobody may say which other files are in it."""
    (tmp_path / "shut").mkdir(mode=0)
    code, output, _ = run("check", "--json", tmp_path / "shut")
    assert (code, json.loads(output)["problems"][0]["code"]) == (2, "unreadable")


def test_check_says_where_a_group_is_attached(run: Run, tmp_path: Path) -> None:
    """An attachment that leads nowhere is told with its own field and line, in both formats (§8.1)."""
    native = tmp_path / "native.yaml"
    native.write_text(
        "version: 1\nnetwork_interfaces:\n- network_interface_id: eni-1\n  security_group_ids: [sg-none]\n"
    )
    place = f"error: {native}:4: network_interfaces[0].security_group_ids[0]: "
    assert place in run("check", "--definitions", native)[1]
    interface = {"NetworkInterfaceId": "eni-1", "SecurityGroupIds": {"SecurityGroupId": ["sg-none"]}}
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"NetworkInterfaceSets": {"NetworkInterfaceSet": [interface]}}))
    assert (
        "NetworkInterfaceSet[0].SecurityGroupIds.SecurityGroupId[0]: "
        in run("check", "--definitions", answer)[1]
    )


@pytest.mark.parametrize(
    ("configuration", "codes"),
    (
        ("a = 1", {"unknown_field", "port_out_of_range"}),
        ("[enforcement]\nmode = 1", {"wrong_type", "port_out_of_range"}),
        ("[[interface]]\nname = 'eth0'\nsecurity_group_ids = ['sg-x']\n[a]", {"unknown_field"}),
        ("[source]\npath = 1", {"wrong_type"}),
        ("mode", {"syntax"}),
    ),
)
def test_check_tells_of_both_at_once(run: Run, tmp_path: Path, configuration: str, codes: set[str]) -> None:
    """A wrong configuration hides no document, unless it does not say which documents are meant."""
    documents = tmp_path / "wrong.yaml"
    documents.write_text(WEB.replace("443/443", "99999"))
    path = tmp_path / "sgagent.toml"
    path.write_text(
        f"{configuration}\n" + ("" if "[source]" in configuration else f'[source]\npath = "{documents}"')
    )
    code, output, _ = run("check", "--json", "--config", path)
    found = json.loads(output)
    assert (code, found["ok"]) == (2, False)
    assert {problem["code"] for problem in found["problems"]} == codes
    code, output, errors = run("check", "--config", path, "--definitions", documents)
    assert (code, errors, output.splitlines()[-1][:7]) == (2, "", "refused")
    assert re.search(rf"error: {re.escape(str(path))}:[1-5]: ", output)
    assert f"error: {documents}:9: " in output


def test_strict_makes_a_warning_refuse(run: Run, web: Path) -> None:
    """An unknown object in an accept rule is a warning, with --strict an error (§8.2)."""
    web.write_text(WEB.replace("198.51.100.0/24", "sg-unknown"))
    arguments = ["compile", "--dry-run", "--definitions", web, "--interface", "eth0=sg-web"]
    code, output, errors = run(*arguments)
    assert code == 0
    assert errors.startswith("warning: ")
    assert output.startswith("destroy table inet sgagent\n")
    code, output, errors = run(*arguments, "--strict")
    assert (code, output) == (2, "")
    assert errors.startswith("error: ")


def test_a_dry_run_has_one_text_and_generation_for_each_policy(run: Run, web: Path) -> None:
    """The order of rules in a document changes nothing; a changed rule has live sessions judged again."""
    arguments = ["compile", "--dry-run", "--definitions", web, "--interface", "eth0=sg-web"]
    first = run(*arguments)[1]
    head, *rules = WEB.split("      - rule_id")
    web.write_text(head + "".join(f"      - rule_id{rule}" for rule in reversed(rules)))
    assert run(*arguments)[1] == first
    web.write_text(WEB.replace("443/443", "8443/8443"))
    assert generation(run(*arguments)[1]) != generation(first)


def generation(text: str) -> str:
    """Return the line that keeps the generation."""
    return next(line.strip() for line in text.splitlines() if line.strip().startswith("comment"))


def test_a_dry_run_prints_json_for_libnftables_too(run: Run, web: Path) -> None:
    """--json is --output json: one list of commands, the old table's end first."""
    arguments = ["compile", "--dry-run", "--definitions", web, "--interface", "eth0="]
    printed = {run(*arguments, *output)[1] for output in (["--json"], ["--output", "json"])}
    (text,) = printed
    commands = json.loads(text)["nftables"]
    assert next(iter(commands[0])) == "destroy"


def test_a_loop_of_links_is_no_fault_of_ours(run: Run, web: Path) -> None:
    """What the file system refuses is told in one line, as any path that can't be read."""
    web.unlink()
    web.symlink_to(web)
    code, output, errors = run("lint", "--json", "--definitions", web)
    assert (code, output) == (2, "")
    assert errors.startswith(f"error: {web}: it can't be read: ")
    assert errors.count("\n") == 1


def test_a_configuration_that_cannot_be_read_is_told_in_plain_words(run: Run, tmp_path: Path) -> None:
    """No number of an error and no codec: what it is, and what would be right."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path, told in (
        (tmp_path, "the configuration can't be read: Is a directory"),
        (binary, "the configuration is not UTF-8 (save the file as UTF-8)"),
        (Path("/dev/zero"), "more than 16 MiB (name a configuration)"),
    ):
        assert run("check", "--config", path) == (2, "", f"sgagent: {path}: {told}\n")


@pytest.mark.parametrize(
    "arguments",
    (("rollback", "two"), ("sign", "--key", "k", "--serial", "-1", "d"), ("fleet", "wait", "--hosts", "1.5")),
)
def test_what_is_no_whole_number_is_called_that(run: Run, arguments: tuple[str, ...]) -> None:
    """The words are about numbers, not about types of a programming language."""
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert ": not a whole number: " in errors


def test_a_limit_that_nothing_can_keep_is_the_only_error(run: Run, web: Path, tmp_path: Path) -> None:
    """The error is the limit's alone."""
    (tmp_path / "sgagent.toml").write_text("[limits]\nrules = -1\n")
    code, output, _ = run("check", "--config", tmp_path / "sgagent.toml", "--definitions", web)
    assert code == 2
    problem, _ = output.splitlines()
    assert problem.endswith("limits.rules: the limit is too small: '-1' (at least 1)")


def test_a_file_whose_name_is_no_text_is_named_all_the_same(run: Run, tmp_path: Path) -> None:
    """As JSON too, in which such a name can be escaped."""
    (tmp_path / b"a\xff.yaml".decode(errors="surrogateescape")).write_text("version: 7\n")
    code, output, _ = run("check", "--json", "--definitions", tmp_path)
    assert code == 2
    assert json.loads(output)["problems"][0]["file"].endswith("/a\udcff.yaml")


def test_help_needs_no_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the output can't encode is escaped."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as ended:
        main(["compile", "--help"])
    assert ended.value.code == 0
    assert b"--interface NAME=GROUP" in written.getvalue()


def test_check_colours_severity_on_a_terminal(run: Run, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ruff and git do: on a terminal, unless NO_COLOR is set or the terminal knows no colours."""
    web.write_text(WEB.replace("443/443", "99999").replace("198.51.100.0/24", "sg-unknown"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    coloured = run("check", web)[1]
    assert coloured.startswith("\x1b[31merror\x1b[0m: ")
    assert "\n\x1b[31mrefused\x1b[0m: " in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = run("check", web)[1]
    assert plain == re.sub(r"\x1b\[[0-9]+m", "", coloured)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert run("check", web)[1] == plain
    monkeypatch.delenv("TERM")
    web.write_text(WEB)
    read, verdict = run("check", web)[1].splitlines()
    assert read.startswith("read 1 file: 1 group, 3 rules")
    assert verdict == "\x1b[32mok\x1b[0m: nothing wrong"


@pytest.mark.one_python
@pytest.mark.parametrize("arguments", (["schema"], ["--help"], ["lint", "--json"]))
def test_an_output_that_cannot_be_written_is_one_line(arguments: list[str], web: Path) -> None:
    """A full disk is no fault of ours, whether the text fits into the buffer or not."""
    if "lint" in arguments:
        arguments = [*arguments, str(web)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "sgagent", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    expected = "sgagent: the output can't be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (74, expected)


@pytest.mark.one_python
def test_an_output_that_is_no_longer_read_is_no_fault() -> None:
    """The reader of a pipe may leave before the end."""
    reading, writing = os.pipe()
    os.close(reading)
    schema = [sys.executable, "-m", "sgagent", "schema"]
    try:
        done = subprocess.run(schema, stdout=writing, stderr=subprocess.PIPE, check=False)  # noqa: S603 - as above
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.one_python
@pytest.mark.parametrize(
    ("redirection", "arguments", "expected"),
    (
        (">&-", ["schema"], (74, "", "sgagent: the output can't be written: Bad file descriptor\n")),
        ("<&- >&- 2>&-", ["schema"], (74, "", "")),
        ("2>&-", ["sign", "nowhere", "--key", "nowhere"], (2, "", "")),
        ("2>/dev/full", ["sign", "nowhere", "--key", "nowhere"], (2, "", "")),
        ("<&-", ["import", "terraform", "-"], (2, "", "error: <stdin>: the file is empty")),
        ("0>/dev/null", ["import", "aws", "-"], (2, "", "sgagent: <stdin>: it can't be read: ")),
        (
            "0>/dev/null",
            ["verify", "--ruleset", "-"],
            (2, "", "sgagent: <stdin>: the ruleset "),
        ),
        (
            "0>/dev/null",
            ["suggest", "--flows", "-", "--definitions", "{web}"],
            (2, "", "sgagent: -: the"),
        ),
    ),
)
def test_streams_that_are_closed_or_full_change_nothing_else(
    web: Path, redirection: str, arguments: list[str], expected: tuple[int, str, str]
) -> None:
    """A lost result is an error, a lost message is none, and neither goes where the other belongs."""
    named = [one.replace("{web}", str(web)) for one in arguments]
    program = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "sgagent", *named]
    done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    code, output, messages = expected
    assert (done.returncode, done.stdout) == (code, output)
    assert done.stderr.startswith(messages)
    assert bool(done.stderr) is bool(messages)


@pytest.mark.one_python
def test_a_ruleset_may_come_from_a_socket(web: Path) -> None:
    """Which no path of /dev opens."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"nftables": [{"table": {"family": "inet", "name": "filter"}}]}')
        ours.shutdown(socket.SHUT_WR)
        program = (sys.executable, "-m", "sgagent", "verify")
        verify = (*program, "--ruleset", "-", "--interface", "eth0=sg-web", str(web))
        done = subprocess.run(verify, stdin=theirs.fileno(), capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    assert done.returncode == 1
    assert done.stderr.startswith("warning: standard input has no table inet sgagent")


@pytest.mark.parametrize(
    "arguments", (("check", "--sarif"), ("lint", "--sarif"), ("apply",), ("init", "--config", "x.toml"))
)
def test_a_working_directory_that_is_gone_is_named(
    run: Run, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Paths have no meaning in it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    path = {"init": [], "apply": ["web.yaml"]}.get(arguments[0], [str(web)])
    code, output, errors = run(*arguments, *path)
    assert (code, output) == (2, "")
    assert errors == "sgagent: the working directory does not exist any more: change to another one\n"


@pytest.mark.one_python
def test_a_result_waits_for_room_in_a_pipe_that_is_non_blocking() -> None:
    """Another program that writes to it may have made it so."""
    schema = [sys.executable, "-m", "sgagent", "schema"]
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(reading, True)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading) as reader, subprocess.Popen(schema, stdout=writing) as shown:  # noqa: S603 - as above
        os.close(writing)
        found = reader.read()
    assert shown.returncode == 0
    assert found == subprocess.run(schema, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - as above


@pytest.mark.one_python
def test_a_message_that_has_no_room_in_a_pipe_that_is_non_blocking_is_lost() -> None:
    """It changes no exit code, and nothing waits for a reader."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as full:
        while full.write(bytes(4096)):
            pass
        sign = [sys.executable, "-m", "sgagent", "sign", "nowhere", "--key", "nowhere"]
        assert subprocess.run(sign, stderr=full, check=False).returncode == 2  # noqa: S603 - as above


@pytest.mark.one_python
def test_a_fault_is_one_line_also_without_room_for_its_trace() -> None:
    """What leaves no room for a trace may be what the fault came of."""
    code = (
        "import resource, sys; from sgagent.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); sys.argv[1:] = ['schema']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - as above
    (line,) = done.stderr.splitlines()
    assert done.returncode == 70
    assert line.startswith("sgagent: unexpected fault: OSError: [Errno 24] Too many open files")
    assert line.endswith("(its trace can't be kept: Too many open files)")
