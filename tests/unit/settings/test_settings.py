"""The agent's own configuration."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from sgagent.core.binding import HandBinding
from sgagent.core.errors import Origin, UsageError
from sgagent.core.model import ALL_PROTOCOLS, TCP, CidrBlock, Direction, Mode, PortSet, SourceCheck
from sgagent.core.policy import Exemption, InvalidPackets
from sgagent.documents import Limits
from sgagent.nft.marks import Sessions
from sgagent.settings import RefusedSettingsError, Settings, parse_interface_name, parse_settings
from sgagent.settings.listen_address import ListenAddress
from sgagent.settings.sources import FileSourceSettings
from sgagent.settings.tables import METADATA_SERVICE, UnboundInterfaces

EVERYTHING = """
    [source]
    type = "file"
    path = "/srv/groups.yaml"

    [state]
    directory = "/srv/state"
    runtime_directory = "/srv/run"

    [enforcement]
    mode = "observe"
    strict = true
    fail_closed = true
    unbound_interfaces = "closed"
    sessions = "keep"
    source_check = "on"
    mark_mask = 0xff00

    [[interface]]
    name = "eth1"
    security_group_ids = ["sg-b", "sg-a"]

    [[interface]]
    name = "eth0.7"
    network_interface_id = "eni-web-1"
    mode = "observe"
    source_check = "off"
    invalid = "evaluate"

    [[failsafe]]
    direction = "ingress"
    cidr = "192.0.2.10/32"
    protocol = "tcp"
    port_range = "22/22"

    [[platform]]
    direction = "egress"
    cidr = "2001:db8::1"
    protocol = "all"

    [metrics]
    listen = "[::1]:9000"

    [limits]
    document_bytes = 1000
    depth = 8
    rules = 10
    addresses = 20
    """


def read(text: str) -> Settings:
    """Return the configuration that a text holds."""
    return parse_settings(dedent(text), "sgagent.toml")


def faults(text: str) -> list[str]:
    """Return the faults of a text that must be refused, one a line."""
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_an_empty_file_is_all_defaults() -> None:
    """Every key has a default (contract: configuration)."""
    settings = read("")
    assert settings == Settings()
    assert settings.source == FileSourceSettings(path=Path("/etc/sgagent/groups.d"))
    assert settings.state.directory == Path("/var/lib/sgagent")
    assert (settings.metrics.listen.host, settings.metrics.listen.port) == ("127.0.0.1", 9469)
    assert (settings.enforcement.mode, settings.enforcement.mark_mask) == (Mode.ENFORCE, 0xFFFF0000)
    assert settings.platform == (METADATA_SERVICE,)


def test_every_key_is_read() -> None:
    """What is written wins over the default."""
    settings = read(EVERYTHING)
    enforcement = settings.enforcement
    assert settings.source == FileSourceSettings(path=Path("/srv/groups.yaml"))
    assert settings.state.runtime_directory == Path("/srv/run")
    assert (enforcement.mode, enforcement.strict, enforcement.fail_closed) == (Mode.OBSERVE, True, True)
    assert (enforcement.unbound_interfaces, enforcement.sessions) == (UnboundInterfaces.CLOSED, Sessions.KEEP)
    assert (enforcement.source_check, enforcement.mark_mask) == (SourceCheck.ON, 0xFF00)
    assert settings.metrics.listen == ListenAddress(host="::1", port=9000)
    assert settings.limits == Limits(document_bytes=1000, depth=8, rules=10, addresses=20)


def test_bindings_by_hand_are_sorted() -> None:
    """Each remembers where it was written."""
    first, second = read(EVERYTHING).interfaces
    assert first == HandBinding(
        interface="eth0.7",
        network_interface_id="eni-web-1",
        mode=Mode.OBSERVE,
        source_check=SourceCheck.OFF,
        invalid=InvalidPackets.EVALUATE,
        origin=Origin(file="sgagent.toml", line=23, path="interface[1]"),
    )
    assert (second.interface, second.security_group_ids, second.mode) == ("eth1", ("sg-a", "sg-b"), None)
    assert second.invalid is InvalidPackets.DROP


def test_lists_of_exemptions() -> None:
    """Fail-safe and platform entries have the same form, and the latter replace the default (§7.3, §7.4)."""
    settings = read(EVERYTHING)
    assert settings.failsafe == (
        Exemption(
            direction=Direction.INGRESS,
            peer=CidrBlock.parse("192.0.2.10"),
            protocol=TCP,
            ports=PortSet.of((22, 22)),
        ),
    )
    assert settings.platform == (
        Exemption(direction=Direction.EGRESS, peer=CidrBlock.parse("2001:db8::1"), protocol=ALL_PROTOCOLS),
    )


def test_the_platform_list_may_be_addresses_alone() -> None:
    """An entry that is only an address or a CIDR lets everything out to it (§7.3)."""
    settings = read('platform = ["100.100.100.200", "203.0.113.0/24"]')
    assert [(str(entry.peer), entry.direction, entry.protocol.number) for entry in settings.platform] == [
        ("100.100.100.200", Direction.EGRESS, None),
        ("203.0.113.0/24", Direction.EGRESS, None),
    ]


def test_the_platform_list_can_be_switched_off() -> None:
    """An empty list is none (§7.3)."""
    assert read("platform = []").platform == ()


ENTRY = "[[failsafe]]\ndirection = 'ingress'\n"


@pytest.mark.parametrize(
    ("text", "key"),
    (
        ("colour = 1", "colour"),
        ("[enforcement]\nmood = 1", "enforcement.mood"),
        ("[enforcement]\nmode = 'off'", "enforcement.mode"),
        ("[enforcement]\nstrict = 'yes'", "enforcement.strict"),
        ("[enforcement]\nmark_mask = 0", "enforcement.mark_mask"),
        ("[enforcement]\nmark_mask = 0b101", "enforcement.mark_mask"),
        ("[enforcement]\nmark_mask = 0x1ffff0000", "enforcement.mark_mask"),
        ("[source]\ntype = 'ftp'", "source.type"),
        ("[source]\npath = ''", "source.path"),
        ("[source]\npath = 3", "source.path"),
        ("[source]\nurl = 'x'", "source.url"),
        ("source = 'x'", "source"),
        ("[state]\ndirectory = 1979-05-27", "state.directory"),
        ("[metrics]\nlisten = '127.0.0.1'", "metrics.listen"),
        ("[metrics]\nlisten = '127.0.0.1:70000'", "metrics.listen"),
        ("[metrics]\nlisten = 'a..b:9469'", "metrics.listen"),
        (f"[metrics]\nlisten = '{'a' * 64}:9469'", "metrics.listen"),
        ("[limits]\nrules = 0", "limits.rules"),
        ("[limits]\nproblems = 5", "limits.problems"),
        ("[interface]\nname = 'eth0'", "interface"),
        ("[[interface]]\nname = 'eth0'", "interface[0]"),
        ("[[interface]]\nname = 'a/b'\nsecurity_group_ids = []", "interface[0].name"),
        (
            "[[interface]]\nname = 'eth0'\nsecurity_group_ids = []\nnetwork_interface_id = 'eni-1'",
            "interface[0]",
        ),
        ("[[interface]]\nsecurity_group_ids = []", "interface[0].name"),
        (ENTRY + "cidr = '192.0.2.0/24'", "failsafe[0].protocol"),
        (ENTRY + "cidr = '192.0.2.0/24'\nprotocol = 'tcp'", "failsafe[0].port_range"),
        (ENTRY + "cidr = '192.0.2.0/24'\nprotocol = 'icmp'\nport_range = 80", "failsafe[0].port_range"),
        (ENTRY + "cidr = '192.0.2.0/24'\nprotocol = 'icmpv6'", "failsafe[0].cidr"),
        (ENTRY + "cidr = '192.0.2.1/24'\nprotocol = 'all'", "failsafe[0].cidr"),
        (ENTRY + "cidr = 'example.com'\nprotocol = 'all'", "failsafe[0].cidr"),
    ),
)
def test_wrong_configurations(text: str, key: str) -> None:
    """Each is one fault with file, key and remedy."""
    (fault,) = faults(text)
    assert re.match(rf"error: sgagent\.toml:[1-9]: {re.escape(key)}: ", fault)
    assert fault.endswith(")")


def test_all_faults_are_told_at_once() -> None:
    """Nobody mends a configuration one fault at a time."""
    assert len(faults("a = 1\n[enforcement]\nmode = 'x'\n[metrics]\nlisten = ''\n")) == 3
    entry = "[[failsafe]]\ndirection = 'in'\ncidr = '10.0.0.1/8'\nprotocol = 'tcp'"
    assert [fault.split(": ")[1:3] for fault in faults(entry)] == [
        ["sgagent.toml:1", "failsafe[0].port_range"],
        ["sgagent.toml:2", "failsafe[0].direction"],
        ["sgagent.toml:3", "failsafe[0].cidr"],
    ]


TABLES = """
[enforcement]
mode = "enforce"     # right

[[failsafe]]         # right, and more than a line
direction = "ingress"
cidr = "192.0.2.10/32"
protocol = "tcp"
port_range = [
    "22/22",
    80,
]

[[failsafe]]
direction = '''egress'''
cidr = "192.0.2.1/24"
protocol = "udp"
port_range = [
    53,
    "x",             # wrong
]

[[interface]]
name = "eth0"
security_group_ids = ["sg-a"]

[[interface]]
name = "eth1"
mode = "off"
"""


def test_each_fault_has_the_line_of_its_key() -> None:
    """Of a repeated table the right one, in a list that of the item, and of what is missing the table's."""
    assert [fault.split(": ")[1:3] for fault in faults(TABLES)] == [
        ["sgagent.toml:16", "failsafe[1].cidr"],
        ["sgagent.toml:20", "failsafe[1].port_range[1]"],
        ["sgagent.toml:27", "interface[1]"],
        ["sgagent.toml:29", "interface[1].mode"],
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    (
        (
            ENTRY + "cidr = '2001:db8::1'\nprotocol = 'icmp'\nport_range = 80\ncolour = 1",
            ["cidr", "colour", "port_range"],
        ),
        ("[[failsafe]]\ndirection = 'in'\ncidr = '2001:db8::1'\nprotocol = 'icmp'", ["cidr", "direction"]),
        ("[[interface]]\nname = 'a/b'", ["", "name"]),
        ("[[interface]]\nname = 'eth0'\nmode = 3\n" * 2, ["", "", "", "mode", "mode"]),
        ("[flow_log]\naccepted = true\ngroup = -1", ["accepted", "group"]),
        ("[signature]\nrequired = 3", ["public_keys", "required"]),
        ("[source]\ntype = 'https'\nclient_key = ''", ["client_certificate", "client_key", "url"]),
        ("[source]\ntype = 'etcd'\nuser = 3", ["endpoints", "password_file", "user"]),
        (
            "[source]\ntype = 'aliyun'\nram_role = 'a'\ncredentials_file = ''",
            ["credentials_file", "ram_role", "region"],
        ),
    ),
)
def test_faults_between_keys_come_with_the_others(text: str, keys: list[str]) -> None:
    """Not only once each key alone is right."""
    paths = [fault.split(": ")[2] for fault in faults(text)]
    assert sorted(re.sub(r"^[a-z_]+(\[[01]\])?\.?", "", path) for path in paths) == keys


@pytest.mark.parametrize(
    "text",
    (
        "[enforcement]\nstrict = 1",
        "[enforcement]\nstrict = 'true'",
        "[metrics]\nlisten = 9469",
        "[limits]\nrules = '5'",
        "[limits]\nrules = 5.0",
        "[limits]\nrules = true",
        "[lint]\ndisable = {}",
        "[lint]\ndisable = 'never_reached'",
        "[state]\ndirectory = ['/']",
        "[state]\ndirectory = 1979-05-27",
        "[[interface]]\nname = 'eth0'\nsecurity_group_ids = [1]",
        "[[failsafe]]\ndirection = 1\ncidr = '::1'\nprotocol = 'all'",
    ),
)
def test_no_type_is_taken_for_another(text: str) -> None:
    """A text of digits is no number, 1 is not true, and a single value is no list."""
    (fault,) = faults(text)
    assert ": expected " in fault


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("[[enforcement]]", "enforcement: expected a mapping, found a list (write [enforcement])"),
        ("source = 'etcd'", "source: expected a mapping, found text: 'etcd' (write [source])"),
        ("[interface]", "interface: expected a list, found a mapping (write [[interface]])"),
        ("[platform]", "platform: expected a list, found a mapping (write [[platform]])"),
        (
            "platform = '192.0.2.1'",
            "platform: expected a list, found text: '192.0.2.1' (write the values in […])",
        ),
        ("failsafe = [1]", "failsafe[0]: expected a mapping, found a whole number: '1' (write [[failsafe]])"),
    ),
)
def test_the_header_of_a_table_is_told(text: str, words: str) -> None:
    """Brackets too few or too many are an easy mistake."""
    with pytest.raises(RefusedSettingsError) as caught:
        parse_settings(text, "sgagent.toml")
    assert words in str(caught.value)


def test_what_is_right_can_be_read_beside_what_is_wrong() -> None:
    """The documents of a refused configuration are checked by it (§8.3)."""
    with pytest.raises(RefusedSettingsError) as caught:
        read(
            "[enforcement]\nmode = 'x'\nstrict = true\n[[failsafe]]\ncidr = 3\n"
            "[limits]\nrules = 5\n[lint]\nx = 1"
        )
    readable = caught.value.readable
    assert (readable.enforcement.mode, readable.enforcement.strict) == (Mode.ENFORCE, True)
    assert (readable.failsafe, readable.limits.rules) == ((), 5)
    assert caught.value.spares(["limits", "source"])
    assert not caught.value.spares(["lint"])


def test_an_interface_is_bound_once() -> None:
    """Two bindings of one name contradict each other."""
    (fault,) = faults("[[interface]]\nname = 'eth0'\nsecurity_group_ids = []\n" * 2)
    assert "bound twice" in fault


@pytest.mark.parametrize(
    ("tables", "path", "words"),
    (
        ([("*", None)], "interface[0].name", "unbound_interfaces"),
        ([("**", None)], "interface[0].name", "unbound_interfaces"),
        ([("?*", None)], "interface[0].name", "unbound_interfaces"),
        ([("br-*", ["*"])], "interface[0].exclude[0]", "unbound_interfaces"),
        ([("br-*", ["a/b"])], "interface[0].exclude[0]", "a pattern ends in *"),
        ([("sixteen-letters*", None)], "interface[0].name", "1 to 15"),
        ([("br/*", None)], "interface[0].name", "not an interface name"),
        ([("br-lan", ["br-x"])], "interface[0].exclude", "br-lan means one link"),
        ([("br-*", ["b*"])], "interface[0].exclude", "br-* means no link"),
        ([("br-*", None), ("*", None)], "interface[1].name", "unbound_interfaces"),
        ([("br-*", None), ("br-*", ["br-lan"])], "interface[1]", "bound twice"),
        ([("br-*", None), ("br-a*", None)], "interface[1].name", 'add exclude = ["br-a*"] to br-*'),
        ([("br-a*", None), ("br-*", ["br-lan"])], "interface[1].name", 'add exclude = ["br-a*"] to br-*'),
        ([("br-*", ["br-ax*", "br-a"]), ("br-a*", None)], "interface[1].name", 'add exclude = ["br-a*"]'),
        ([("br-?", None)], "interface[0].name", "write br-* and exclude what it must not match"),
        ([("br-?*", None)], "interface[0].name", "a pattern is how names begin, and one * at its end"),
        ([("br*lan", None)], "interface[0].name", "write br* and exclude"),
        ([("br-**", None)], "interface[0].name", "write br-* and exclude"),
        ([("*-lan", None)], "interface[0].name", "bind each link by its name"),
        (
            [("br-*", ["*-lan"])],
            "interface[0].exclude[0]",
            "a pattern is how names begin, and one * at its end",
        ),
    ),
)
def test_patterns_that_are_refused(tables: list[tuple[str, list[str] | None]], path: str, words: str) -> None:
    """Each fault has its place and what would be right."""
    texts = (
        f"[[interface]]\nname = '{name}'\nsecurity_group_ids = []\n"
        + ("" if exclude is None else f"exclude = {exclude}\n")
        for name, exclude in tables
    )
    (fault,) = faults("".join(texts))
    assert f": {path}: " in fault
    assert words in fault


def test_patterns_with_exceptions() -> None:
    """Two that have no link in common, as far as their texts show, stand beside each other."""
    settings = read("""
        [[interface]]
        name = "br-*"
        exclude = ["br-lan", "br-a*", "br-lan"]
        security_group_ids = ["sg-a"]
        source_check = "on"

        [[interface]]
        name = "br-a*"
        security_group_ids = ["sg-b"]

        [[interface]]
        name = "wan*"
        security_group_ids = []
    """)
    assert [(one.interface, one.exclude) for one in settings.interfaces] == [
        ("br-*", ("br-a*", "br-lan")),
        ("br-a*", ()),
        ("wan*", ()),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    (
        ("x =", "sgagent.toml:1"),
        ("a = 1\na = 2\n", "sgagent.toml:2"),
        ("a = 1\n\nb = [1,\n", "sgagent.toml:4"),
        ("[" * 5000, "sgagent.toml:1"),
        ("a = 1" + "0" * 5000, "sgagent.toml"),
        ("a" + ".a" * 5000 + " = 1", "sgagent.toml"),
    ),
)
def test_what_is_not_toml(text: str, place: str) -> None:
    """It is told with the place, and nothing counts as read as it is meant."""
    with pytest.raises(RefusedSettingsError) as caught:
        read(text)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"error: {place}: not TOML: ")
    assert problem.code == "syntax"
    assert not caught.value.spares(["source"])


def test_a_byte_order_mark_is_skipped() -> None:
    """Editors of other systems begin files with it; lines are counted as without."""
    assert read('\ufeff[state]\ndirectory = "/srv/sgagent"\n').state.directory == Path("/srv/sgagent")
    (fault,) = faults("\ufeff[stat]\n")
    assert fault.startswith("error: sgagent.toml:1: stat: ")


@pytest.mark.parametrize(
    "name", ("", ".", "..", "a/b", "a b", "a:b", "sixteen-letters-", "é", "a\n", 'a"b', "@a")
)
def test_names_that_no_link_can_have(name: str) -> None:
    """Or that nft or a terminal would not take."""
    with pytest.raises(UsageError, match="not an interface name"):
        parse_interface_name(name, "--interface")


def test_names_of_links() -> None:
    """Up to 15 characters, VLANs and peers included."""
    assert parse_interface_name("veth_0@if7.1+-x", "--interface") == "veth_0@if7.1+-x"


def test_name_servers_are_single_addresses() -> None:
    """Of both families, each once, in their order (§12.3)."""
    text = "[dns]\nservers = ['192.0.2.53', '2001:db8:0::53', '192.0.2.53']\nkeep_hours = 48\n"
    dns = parse_settings(f"{text}[limits]\nnames = 5\naddresses_per_name = 3", "sgagent.toml")
    assert dns.dns.servers == ("192.0.2.53", "2001:db8::53")
    assert (dns.dns.keep_hours, dns.limits.names, dns.limits.addresses_per_name) == (48, 5, 3)
    assert parse_settings("[dns]", "sgagent.toml") == Settings()


@pytest.mark.parametrize(
    ("written", "remedy"),
    (
        ("servers = ['192.0.2.0/24']", "the address of a name server"),
        ("servers = ['ns.example.org']", "(the address of a name server)"),
        ("servers = [53]", "(the address of a name server)"),
        ("servers = ['ff02::fb']", "no server has this address"),
        ("servers = ['0.0.0.0']", "no server has this address"),
        ("servers = ['fe80::1']", "a link-local address needs a zone"),
        ("servers = ['fe80::1%eth0']", "can stand in /etc/resolv.conf alone"),
        ("servers = '192.0.2.53'", "a list"),
        ("keep_hours = 0", "from 1 to 8760"),
        ("server = ['192.0.2.53']", "did you mean servers?"),
    ),
)
def test_a_wrong_key_of_dns_is_an_error(written: str, remedy: str) -> None:
    """With what would be right."""
    with pytest.raises(RefusedSettingsError) as caught:
        parse_settings(f"[dns]\n{written}", "sgagent.toml")
    (problem,) = caught.value.problems
    assert remedy in str(problem)
