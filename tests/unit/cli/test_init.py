"""``sgagent init``: the first policy of any host is valid, admits whom it should, and overwrites nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from sgagent.cli import init
from sgagent.cli.init import MOST_PEERS, FirstPolicy, HostView, OpenPort, filtered_links, make_first_policy
from sgagent.cli.main import main
from sgagent.core.binding import HostFacts, Link, bind
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import CidrBlock, Direction, Family, Policy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import parse_settings


def block(text: str) -> CidrBlock:
    """Return an address or network."""
    return CidrBlock.parse(text)


ETH0 = Link(
    name="eth0",
    index=2,
    mac_address="02:00:00:00:00:01",
    addresses=(block("192.0.2.11"), block("2001:db8::11"), block("fe80::1")),
    has_hardware=True,
)
LO = Link(name="lo", index=1, addresses=(block("127.0.0.1"),), is_loopback=True)
DOCKER = Link(name="docker0", index=3, mac_address="02:00:00:00:00:02", addresses=(block("172.17.0.1"),))
VETH = Link(name="veth0", index=4, mac_address="02:00:00:00:00:03", addresses=(block("10.0.0.11"),))
PORT_OF_DOCKER = Link(name="veth1", index=5, master="docker0", master_kind="bridge")
VIEW = HostView(name="Web-1", links=(ETH0, LO), ports=(), logins=frozenset())


def admits(policy: FirstPolicy, links: tuple[Link, ...], source: str, port: int, protocol: int = 6) -> bool:
    """Return whether a policy, read as a document, lets a source in at a port of its first link."""
    snapshot, problems = parse_documents((DocumentFile("first.yaml", policy.text.encode()),), Limits())
    bound = bind(snapshot, (), HostFacts(links=links), automatically=True)
    resolution = resolve(snapshot, bound, Exemptions())
    assert (*problems, *resolution.problems) == ()
    peer = block(source)
    name = policy.interfaces[0]
    link = next(one for one in links if one.name == name)
    local = next(one for one in link.addresses if one.family is peer.family)
    packet = Packet(
        interface=name,
        direction=Direction.INGRESS,
        family=peer.family,
        source=peer.first,
        destination=local.first,
        protocol=protocol,
        source_port=40_000,
        destination_port=port,
    )
    return evaluate(resolution.policy, packet).verdict is Policy.ACCEPT


def test_without_a_wish_nobody_is_admitted_and_it_says_so() -> None:
    """At a console, without options."""
    policy = make_first_policy(VIEW)
    assert not admits(policy, VIEW.links, "198.51.100.7", 22)
    assert policy.admitted == ()
    assert any("no rule admits SSH" in note for note in policy.notes)


def test_a_gateway_is_told_that_rules_reach_behind_it() -> None:
    """Where it forwards; else nothing of that is said."""
    assert any("behind it" in one for one in make_first_policy(replace(VIEW, forwarded=(Family.IPV6,))).notes)
    assert not any("behind it" in one for one in make_first_policy(VIEW).notes)


def test_wishes_are_granted_and_nothing_else() -> None:
    """SSH from named networks of both families, the web from everywhere."""
    ssh_from = (block("203.0.113.0/24"), block("2001:db8:7::/48"))
    view = replace(VIEW, ports=(OpenPort(protocol="tcp", port=443),))
    policy = make_first_policy(view, ssh_from=ssh_from, is_web_server=True)
    for source, port, is_admitted in (
        ("203.0.113.9", 22, True),
        ("198.51.100.7", 22, False),
        ("2001:db8:7::9", 22, True),
        ("2001:db8:8::9", 22, False),
        ("198.51.100.7", 443, True),
        ("2001:db8:8::9", 80, True),
        ("203.0.113.9", 5432, False),
    ):
        assert admits(policy, VIEW.links, source, port) is is_admitted, (source, port)


def test_port_443_is_opened_only_if_something_listens() -> None:
    """Over TCP; port 80 is opened as asked for."""
    for ports in ((), (OpenPort(protocol="udp", port=443),)):
        policy = make_first_policy(replace(VIEW, ports=ports), is_web_server=True)
        assert admits(policy, VIEW.links, "198.51.100.7", 80)
        assert not admits(policy, VIEW.links, "198.51.100.7", 443)


@pytest.mark.parametrize("peer", ("198.51.100.7", "2001:db8:7::1"))
@pytest.mark.parametrize("ssh_from", ((), (block("203.0.113.0/24"),)))
def test_the_session_it_is_typed_in_is_admitted(peer: str, ssh_from: tuple[CidrBlock, ...]) -> None:
    """At the port of the session, which need not be 22, and from this address alone."""
    view = HostView(name="h", links=(ETH0,), ports=(), logins=frozenset({(2222, block(peer))}))
    policy = make_first_policy(view, ssh_from=ssh_from)
    assert admits(policy, view.links, peer, 2222)
    assert not admits(policy, view.links, peer.replace("7", "8"), 2222)
    assert not admits(policy, view.links, peer, 22)
    assert bool(policy.notes) is bool(ssh_from)


def test_open_sessions_are_admitted_also_at_ports_with_other_rules() -> None:
    """Another administrator's login, and clients of a database; not as many as a crowd."""
    crowd = frozenset(
        CidrBlock.around(Family.IPV4, (198 << 24) + (51 << 16) + (100 << 8) + n, 32)
        for n in range(MOST_PEERS + 1)
    )
    view = HostView(
        name="h",
        links=(ETH0,),
        ports=(
            OpenPort(protocol="tcp", port=22, peers=frozenset({block("198.51.100.8")})),
            OpenPort(protocol="tcp", port=5432, peers=frozenset(map(block, ("192.0.2.21", "2001:db8::21")))),
            OpenPort(protocol="tcp", port=6000, peers=crowd),
            OpenPort(protocol="udp", port=53),
        ),
        logins=frozenset({(22, block("198.51.100.7"))}),
    )
    policy = make_first_policy(view, ssh_from=(block("203.0.113.0/24"),))
    assert admits(policy, view.links, "198.51.100.8", 22)
    assert admits(policy, view.links, "192.0.2.21", 5432)
    assert admits(policy, view.links, "2001:db8::21", 5432)
    assert not admits(policy, view.links, "192.0.2.22", 5432)
    assert not admits(policy, view.links, "198.51.100.1", 6000)
    assert any(f"{MOST_PEERS + 1} hosts" in note for note in policy.notes)


def test_commented_rules_are_valid_once_uncommented() -> None:
    """For each listener and for ping, of both families."""
    ports = (OpenPort(protocol="tcp", port=5432), OpenPort(protocol="udp", port=53))
    view = HostView(name="h", links=(ETH0,), ports=ports, logins=frozenset({(22, block("198.51.100.7"))}))
    policy = make_first_policy(view)
    opened = policy.text.replace("      # - {", "      - {")
    assert opened.count("\n      - {") == 4
    uncommented = FirstPolicy(text=opened, interfaces=policy.interfaces, admitted=(), notes=())
    assert admits(uncommented, view.links, "192.0.2.77", 5432)
    assert admits(uncommented, view.links, "192.0.2.77", 53, protocol=17)
    assert not admits(policy, view.links, "192.0.2.77", 5432)


@pytest.mark.parametrize(
    ("links", "names"),
    (
        ((ETH0, LO, DOCKER, VETH, PORT_OF_DOCKER), ["eth0"]),
        ((LO, DOCKER, VETH, PORT_OF_DOCKER), ["veth0"]),
        ((LO,), []),
        (
            (
                Link(name="bond0", index=2, addresses=(block("192.0.2.11"),)),
                Link(name="eth1", index=3, master="bond0", master_kind="bond", has_hardware=True),
                DOCKER,
            ),
            ["bond0"],
        ),
    ),
)
def test_the_links_that_lead_outside_are_filtered(links: tuple[Link, ...], names: list[str]) -> None:
    """Those with hardware and bonds; in a container those that are no bridge."""
    assert [link.name for link in filtered_links(links)] == names
    policy = make_first_policy(HostView(name="h", links=links, ports=(), logins=frozenset()))
    _, problems = parse_documents((DocumentFile("first.yaml", policy.text.encode()),), Limits())
    assert problems == ()
    assert bool(names) or any("no link" in note for note in policy.notes)


@given(st.text(max_size=20), st.text(min_size=1, max_size=15).filter(lambda text: "\n" not in text))
def test_no_name_breaks_the_document(host: str, link: str) -> None:
    """Names of hosts and links may hold anything."""
    links = (Link(name=link, index=2, addresses=(block("192.0.2.11"),), has_hardware=True), ETH0, DOCKER)
    policy = make_first_policy(HostView(name=host, links=links, ports=(), logins=frozenset()))
    snapshot, problems = parse_documents((DocumentFile("first.yaml", policy.text.encode()),), Limits())
    assert problems == ()
    assert (block("192.0.2.11"),) in [one.addresses for one in snapshot.network_interfaces]
    assert len(snapshot.network_interfaces) == 2


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the command on a host with one link, with files in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init, "inspect_host", lambda: VIEW)

    def run_command(*arguments: str, command: str = "init") -> tuple[int, str, str]:
        code = main([command, "--config", "sgagent.toml", *arguments])
        output, errors = capsys.readouterr()
        return code, output, errors

    return run_command


def test_it_writes_both_files_once(run: Run, tmp_path: Path) -> None:
    """The second run refuses, and changes nothing."""
    code, output, _ = run("--ssh-from", "203.0.113.0/24", "--json")
    assert code == 0
    written = json.loads(output)
    assert written["interfaces"] == ["eth0"]
    configuration = Path("sgagent.toml").read_text()
    settings = parse_settings(configuration, "sgagent.toml")
    assert settings.enforcement.mode.value == "observe"
    assert str(settings.source.path) == f"{tmp_path}/groups.d"  # type: ignore[union-attr]  # it is a file source
    policy = Path("groups.d/first.yaml").read_text()
    code, _, errors = run("--web")
    assert code == 2
    assert "there are documents already (first.yaml)" in errors
    assert Path("groups.d/first.yaml").read_text() == policy
    assert Path("sgagent.toml").read_text() == configuration


def test_a_configuration_that_observes_stays_the_same_file(run: Run, tmp_path: Path) -> None:
    """With its owner and mode, which may protect a secret."""
    place = Path("sgagent.toml")
    place.write_text(f'[source]\npath = "{tmp_path}/groups.d"\n[enforcement]\nmode = "observe"\n')
    place.chmod(0o640)
    before = place.stat()
    assert run()[0] == 0
    after = place.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert after.st_mtime_ns == before.st_mtime_ns


def test_a_configuration_that_sets_nothing_is_completed(run: Run) -> None:
    """Its comments stay."""
    Path("sgagent.toml").write_text("# [source]\n# ours\n")
    assert run()[0] == 0
    text = Path("sgagent.toml").read_text()
    assert text.startswith("# [source]\n# ours\n")
    assert parse_settings(text, "sgagent.toml").enforcement.mode.value == "observe"


@pytest.mark.parametrize("header", ("[enforcement]", "#[enforcement]"))
def test_each_line_of_an_example_can_be_uncommented_still(run: Run, header: str) -> None:
    """The mode goes where the table is, and takes the place of the commented default."""
    example = (
        f'#[source]\n#path = "/x"\n\n{header}\n# of every interface\n#mode = "enforce"\n#strict = false\n'
    )
    Path("sgagent.toml").write_text(example)
    assert run()[0] == 0
    text = Path("sgagent.toml").read_text()
    assert parse_settings(text, "sgagent.toml").enforcement.mode.value == "observe"
    uncommented = text.replace("#strict", "strict")
    assert parse_settings(uncommented, "sgagent.toml").enforcement.mode.value == "observe"
    assert (text.count("[enforcement]"), text.count("[source]"), text.count("mode = ")) == (1, 1, 1)


def test_a_mode_that_is_set_is_not_overwritten(run: Run) -> None:
    """Also the one that holds without the line."""
    Path("sgagent.toml").write_text('[enforcement]\nmode = "enforce"\n')
    code, _, errors = run()
    assert code == 2
    assert "sets something already" in errors


@pytest.mark.parametrize(
    ("configuration", "told"),
    (
        ('[metrics]\nlisten = "127.0.0.1:9000"\n', 'set mode = "observe" under [enforcement]'),
        ("[enforcement]\nmode = 1\n", "sgagent.toml:2"),
        (
            (
                '[enforcement]\nmode = "observe"\n'
                '[source]\ntype = "etcd"\nendpoints = ["http://192.0.2.1:2379"]\n'
            ),
            "write the first policy there",
        ),
    ),
)
def test_what_somebody_configured_is_left_alone(run: Run, configuration: str, told: str) -> None:
    """It says what to do, and writes nothing."""
    Path("sgagent.toml").write_text(configuration)
    code, _, errors = run()
    assert code == 2
    assert told in errors
    assert Path("sgagent.toml").read_text() == configuration
    assert not Path("groups.d").exists()


def test_wrong_networks_are_refused(run: Run) -> None:
    """With what was expected."""
    code, _, errors = run("--ssh-from", "203.0.113.7/24")
    assert code == 2
    assert "203.0.113.7/24 is no address or network" in errors
    assert not Path("sgagent.toml").exists()
