"""The fallback that closes a host at a boot without an agent: a shell, any nft, and a kept file."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, lab
from sgagent.agent.state.tables import FALLBACK_FILE, render_fallback
from sgagent.core.model import DCCP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE, Direction, Mode, Protocol
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.policy_test.packet_bytes import tcp, udp
from tests.corpus import examples
from tests.words import IN, OUT, block, ports

_ROOT = Path(__file__).parent.parent
_SCRIPT = _ROOT / "systemd" / "boot-fallback"
_SUITES = _ROOT / ".cache" / "suites"
_LIBRARIES = ("libnftables1", "libnftnl11")

_HOST, _HOST6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
_FRIEND, _OTHER = ip_address("192.0.2.10"), ip_address("198.51.100.7")
_FRIEND6, _OTHER6 = ip_address("2001:db8:1::10"), ip_address("2001:db8:2::7")


def _entry(direction: Direction, peer: str, protocol: Protocol, port: str = "") -> Exemption:
    return Exemption(direction=direction, peer=block(peer), protocol=protocol, ports=ports(port))


_EXEMPTIONS = Exemptions(
    failsafe=(
        _entry(IN, "192.0.2.10/32", TCP, "22,8000-8100"),
        _entry(IN, "2001:db8:1::/48", TCP, "22"),
        _entry(IN, "192.0.2.0/24", UDP, "7"),
        *(_entry(IN, "192.0.2.0/24", protocol) for protocol in (SCTP, DCCP, UDP_LITE)),
        *(_entry(OUT, "0.0.0.0/0", protocol) for protocol in (ICMP, GRE)),
        _entry(OUT, "::/0", ICMPV6),
    )
)
_CLOSED = ResolvedPolicy(
    interfaces=(
        closed_interface("eth0", _EXEMPTIONS, Mode.ENFORCE),
        closed_interface("eth1", _EXEMPTIONS, Mode.OBSERVE),
    )
)


@pytest.fixture
def wires() -> Iterator[Lab]:
    """Build a host with two links: one that is enforced, one in observe mode."""
    with lab("eth0", "eth1") as built:
        yield built


@pytest.fixture(params=("", "bookworm", "bullseye"), ids=("this", "1.0.6", "0.9.8"))
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the script beside the nft of a suite, as in a bundle; or alone, so that it takes this host's."""
    place = tmp_path / "bin"
    place.mkdir()
    shutil.copy(_SCRIPT, place)
    if request.param:
        packages = _SUITES / request.param
        if not (packages / "nftables").exists():
            pytest.skip(f"no nft of {request.param} in .cache; script/setup --full fetches it, as root")
        paths = ":".join(str(packages / name / "usr/lib/x86_64-linux-gnu") for name in _LIBRARIES)
        wrapper = place / "nft"
        program = packages / "nftables/usr/sbin/nft"
        wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={paths} exec {program} "$@"\n')
        wrapper.chmod(0o755)
    return place / _SCRIPT.name


@pytest.fixture
def fall_back(wires: Lab, script: Path, tmp_path: Path) -> Callable[[str | None], str]:
    """Return a function that runs the script on the host with a kept file, and returns its output."""
    state = tmp_path / "state"
    state.mkdir()

    def run(kept: str | None, result: str = "exit-code") -> str:
        if kept is not None:
            (state / FALLBACK_FILE).write_text(kept)
        entering = ("ip", "netns", "exec", wires.host.name, "env", "--ignore-environment")
        variables = (f"STATE_DIRECTORY={state}", f"SERVICE_RESULT={result}", "PATH=/usr/bin:/usr/sbin")
        done = subprocess.run(
            (*entering, *variables, str(script)), capture_output=True, text=True, check=False
        )
        return f"{done.returncode} {done.stderr}"

    return run


def _kept(policy: ResolvedPolicy = _CLOSED) -> str:
    text = render_fallback(policy)
    assert text is not None
    return text


def test_it_closes_the_host_but_for_its_exemptions(wires: Lab, fall_back: Callable[..., str]) -> None:
    """Packets of both families pass the enforced link by the fail-safe list only; the other link is open."""
    wires.add_host_addresses([str(_HOST), str(_HOST6)])
    assert fall_back(_kept()).startswith("0 sgagent: boot failed; links are closed")
    sent = [tcp(_FRIEND, _HOST, 1024, 22), tcp(_FRIEND, _HOST, 1024, 8050), tcp(_FRIEND6, _HOST6, 1024, 22)]
    assert wires.send_ingress([*sent, udp(_OTHER, _HOST, 67, 68)]) == [True] * 4
    denied = [tcp(_OTHER, _HOST, 1024, 22), tcp(_FRIEND, _HOST, 1024, 23), tcp(_OTHER6, _HOST6, 1024, 22)]
    assert wires.send_ingress([*denied, udp(_FRIEND, _HOST, 1024, 68)]) == [False] * 4
    assert wires.send_egress([tcp(_HOST, _FRIEND, 1024, 22), udp(_HOST, _OTHER, 1024, 53)]) == [False] * 2
    assert wires.send_ingress([tcp(_OTHER, _HOST, 1024, 80)], "eth1") == [True]


def test_a_session_that_it_lets_open_goes_on(wires: Lab, fall_back: Callable[..., str]) -> None:
    """A login by the fail-safe list sends and is answered, so that somebody can repair the host."""
    wires.add_host_addresses([str(_HOST), str(_HOST6)])
    fall_back(_kept())
    for host, friend in ((_HOST, _FRIEND), (_HOST6, _FRIEND6)):
        with (
            wires.listen(wires.host, str(host), 22) as listener,
            wires.connect(wires.peer, (str(friend), 0), (str(host), 22), seconds=20.0) as client,
            listener.accept()[0] as server,
        ):
            client.sendall(b"repair")
            assert server.recv(6) == b"repair"
            server.sendall(b"done")
            assert client.recv(4) == b"done"


def test_every_nft_loads_what_examples_come_to(wires: Lab, fall_back: Callable[..., str]) -> None:
    """Patterns, lower devices and many links are spelled so that it understands them."""
    for example in examples():
        policy = replace(example.policy(), unbound=closed_interface("*", _EXEMPTIONS, Mode.ENFORCE))
        assert fall_back(_kept(policy)).startswith("0 sgagent: boot failed; links are closed"), example.name
        wires.host.nft("delete", "table", "inet", "sgagent")


def test_rules_in_force_stay(wires: Lab, fall_back: Callable[..., str]) -> None:
    """Where the boot enforced a policy and failed after that, the rules in force are better than this."""
    wires.load("table inet sgagent {\nchain prerouting {\ntype filter hook prerouting priority -150;\n}\n}\n")
    before = wires.host.nft("list", "ruleset")
    assert fall_back(_kept()).startswith("0 sgagent: boot failed; the rules that are in force stay")
    assert wires.host.nft("list", "ruleset") == before


def test_a_host_that_enforced_nothing_stays_open(wires: Lab, fall_back: Callable[..., str]) -> None:
    """Without a file nothing is loaded; nor where the boot did its work and its unit is stopped."""
    assert "no rules were kept" in fall_back(None)
    assert fall_back(_kept(), "success") == "0 "
    assert wires.host.nft("list", "ruleset") == ""


_HOSTILE = (
    "add rule inet sgagent prerouting accept; flush ruleset",
    'add rule inet sgagent prerouting iifname "a" accept; flush ruleset',
    'add rule inet sgagent prerouting iifname "a accept',
    "add rule inet filter input accept",
    "add rule inet sgagent closed/x queue",
    "add rule inet sgagent prerouting meta mark set 1",
    "add rule inet sgagent prerouting fwd to a",
    "create chain inet sgagent closed/x { type nat hook prerouting priority 0; }",
    "create chain inet sgagent closed/*",
    'include "/etc/shadow"',
    "add rule inet sgagent prerouting drop # comment",
    "add rule inet sgagent prerouting jump closed/$x",
)


@pytest.mark.parametrize("line", _HOSTILE)
def test_what_the_agent_never_writes_is_refused(wires: Lab, fall_back: Callable[..., str], line: str) -> None:
    """The process without privilege can write the file, and gets no more by it than by the applier."""
    wires.load("table inet other {\n}\n")
    before = wires.host.nft("list", "ruleset")
    assert fall_back(_kept() + line + "\n").startswith("1 sgagent: ")
    assert wires.host.nft("list", "ruleset") == before


def test_links_with_any_name_are_closed(wires: Lab, fall_back: Callable[..., str]) -> None:
    """Linux lets links be called with signs that mean something to shells and to nft."""
    names = ("a;b", "$(x)", "a b", "#c", "ü", "x*y", "{", "--")
    closed = tuple(closed_interface(name, _EXEMPTIONS, Mode.ENFORCE) for name in sorted(names))
    assert fall_back(_kept(ResolvedPolicy(interfaces=closed))).startswith("0 sgagent: boot failed; links are")
    listed = wires.host.nft("list", "table", "inet", "sgagent")
    assert [name for name in names if f'iifname "{name}"' not in listed] == []
