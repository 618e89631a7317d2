"""``sgagent test --kernel``: real packets in a private network, by anybody, and nothing else is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from integration import forkserver
from integration.namespaces import network_namespace
from tests.corpus import EXAMPLES, examples
from tests.unit.test_shown_output import shown_in

COMMAND = (sys.executable, "-m", "sgagent", "test", "--kernel")
NOBODY = 65534
WORLD_READABLE = 0o005
SESSIONS = """\
bind: {eth0: [sg-closed], d: [sg-closed]}
packets:
  - {name: out, interface: eth0, direction: egress, source: 10.0.0.11, destination: 198.51.100.4,
     protocol: PROTOCOL, expect: accept, decided_by: default}
  - {name: back, replies_to: out, expect: accept, decided_by: session}
  - {name: in, interface: d, direction: ingress, source: 198.51.100.4, destination: 10.0.0.11,
     protocol: PROTOCOL, expect: drop, decided_by: default}
  - {name: nothing, replies_to: in, expect: drop}
"""
GROUP = """\
version: 1
security_groups:
  - {security_group_id: sg-closed, type: basic, rules: []}
"""


def run(*arguments: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, as another user where one is given."""
    if user is None:
        return forkserver.run(
            ("test", "--kernel", *map(str, arguments)), seconds=300, directory=EXAMPLES.parent
        )
    return subprocess.run(
        (*COMMAND, *map(str, arguments)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=EXAMPLES.parent,
        user=user,
        extra_groups=(),
    )


@pytest.mark.long
def test_the_kernel_does_what_the_examples_say() -> None:
    """Every packet of every example passes or is dropped, by its file's decider; none is left out."""
    done = run("examples", "--json")
    found = json.loads(done.stdout)
    expected = sum(len(example.scenario.traffic) for example in examples())
    assert (done.returncode, found["passed"], found["failed"], found["left_out"]) == (0, expected, 0, 0)


def test_a_host_may_have_hundreds_of_links(tmp_path: Path) -> None:
    """Each has addresses of its own."""
    bound = ", ".join(f"d{number}: [sg-closed]" for number in range(300))
    packets = [
        f"  - {{name: of d{number}, interface: d{number}, direction: ingress, source: 198.51.100.4,"
        " destination: 10.0.0.11, protocol: tcp, port: 80, expect: drop}"
        for number in (0, 299)
    ]
    text = "\n".join((f"bind: {{{bound}}}", "packets:", *packets))
    (tmp_path / "packets.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "groups.yaml").write_text(GROUP, encoding="utf-8")
    done = run(tmp_path / "packets.yaml", tmp_path / "groups.yaml", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["passed"] == 2


@pytest.mark.sampled(1)
@pytest.mark.parametrize("user", (0, NOBODY))
def test_containers_do_not_let_parameters_be_written(user: int) -> None:
    """There /proc/sys is read-only, for root too: a link is set up by other means."""
    read_only = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    done = subprocess.run(
        (
            *("unshare", "--mount", "--propagation=private", "sh", "-c", read_only, "sh"),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(*COMMAND, "examples/1-web", "--json"),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=EXAMPLES.parent,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0


def test_what_is_shown_is_what_is_printed() -> None:
    """docs/test.md shows the command's output."""
    ((command, printed),) = [entry for entry in shown_in("test.md") if "--kernel" in entry[0]]
    done = run(*command.removeprefix("test ").replace(" --kernel", "").split())
    assert (done.returncode, done.stdout) == (0, printed)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "protocol", ("tcp, port: 443", "udp, port: 53", "icmp", "33", "47", "132", "136", "253")
)
def test_answers_follow_their_sessions(tmp_path: Path, protocol: str) -> None:
    """A session that was sent out is answered, though nothing may come in; a name may have one letter."""
    (tmp_path / "groups.d").mkdir()
    (tmp_path / "groups.d" / "group.yaml").write_text(GROUP)
    (tmp_path / "packets.yaml").write_text(SESSIONS.replace("PROTOCOL", protocol))
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/packets.yaml: 4 passed\n")


ENDS = {"v4": ("198.51.100.4", "10.0.0.11"), "v6": ("2001:db8:9::4", "2001:db8::11")}
OPEN = """\
version: 1
security_groups:
  - security_group_id: sg-open
    type: basic
    rules:
      - {direction: ingress, policy: accept, protocol: all, authorization_object: 0.0.0.0/0}
      - {direction: ingress, policy: accept, protocol: all, authorization_object: "::/0"}
      - {direction: egress, policy: accept, protocol: all, authorization_object: 0.0.0.0/0}
      - {direction: egress, policy: accept, protocol: all, authorization_object: "::/0"}
"""
INVALID_NUMBERS = {"v4": {58}, "v6": {0, 1, 43, 44, 51, 59, 60}}
"""The other family's ICMP, and IPv6 without an upper layer: conntrack lets these open no session."""


@pytest.mark.long
def test_every_protocol_is_judged_as_the_specification_says(tmp_path: Path) -> None:
    """Whatever the number: with everything allowed each packet passes, both ways, and so does an answer."""
    (tmp_path / "groups.yaml").write_text(OPEN)
    packets: list[dict[str, object]] = []
    for family, number, direction in product(ENDS, range(256), ("ingress", "egress")):
        source, destination = ENDS[family] if direction == "ingress" else reversed(ENDS[family])
        name = f"{family} {number} {direction}"
        opener = {"name": name, "direction": direction, "source": source, "destination": destination}
        port = {"port": 443} if number in (6, 17) else {}
        expect = "drop" if number in INVALID_NUMBERS[family] else "accept"
        packets.append({**opener, "protocol": str(number), **port, "expect": expect})
        packets.append({"name": f"answer to {name}", "replies_to": name, "expect": expect})
    content = {"definitions": "groups.yaml", "bind": {"eth0": ["sg-open"]}, "packets": packets}
    (tmp_path / "packets.yaml").write_text(json.dumps(content))
    done = run(tmp_path / "packets.yaml", "--json")
    ((tests,),) = [[file["tests"] for file in json.loads(done.stdout)["files"]]]
    assert [one for one in tests if one["result"] == "failed"] == []
    left_out = [one["name"] for one in tests if one["result"] == "left_out"]
    assert left_out == ["v6 0 ingress", "answer to v6 0 ingress"], "IPv6 drops an empty header before hooks"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("family", "protocol"), (("v4", "icmp"), ("v6", "icmpv6")))
def test_each_message_is_judged_as_the_specification_says(tmp_path: Path, family: str, protocol: str) -> None:
    """Whatever its type: requests pass, a message that opens no session does not; no answer is a fault."""
    (tmp_path / "groups.yaml").write_text(OPEN)
    source, destination = ENDS[family]
    packets = [
        {
            "name": f"{kind}",
            "direction": "ingress",
            "source": source,
            "destination": destination,
            "protocol": protocol,
            "icmp_type": kind,
            "expect": "accept",
        }
        for kind in range(256)
    ]
    content = {"definitions": "groups.yaml", "bind": {"eth0": ["sg-open"]}, "packets": packets}
    (tmp_path / "packets.yaml").write_text(json.dumps(content))
    done = run(tmp_path / "packets.yaml", "--json")
    ((tests,),) = [[file["tests"] for file in json.loads(done.stdout)["files"]]]
    assert [one["detail"] for one in tests if "fault of sgagent" in one["detail"]] == []
    passed = [int(one["name"]) for one in tests if one["result"] == "passed"]
    requests = {"v4": [8, 13, 15, 17], "v6": [128, 130, 131, 132, 133, 134, 135, 136, 139, 143]}
    assert [kind for kind in passed if family == "v4" or kind not in (137, 151, 152)] == requests[family]


def test_what_is_not_as_expected_fails(tmp_path: Path) -> None:
    """The kernel's own answer is reported, with the deciding rule; unsendable packets are left out."""
    (tmp_path / "packets.yaml").write_text(
        f"definitions: {EXAMPLES}/1-web/groups.d\nbind: {{eth0: [sg-web]}}\npackets:\n"
        "  - {name: telnet, direction: ingress, source: 198.51.100.4, destination: 10.0.0.11,\n"
        "     protocol: tcp, port: 23, expect: accept}\n"
        "  - {name: DHCP, direction: egress, source: 0.0.0.0, destination: 255.255.255.255, protocol: udp,\n"
        "     source_port: 68, port: 67, expect: accept}\n"
    )
    done = run(tmp_path / "packets.yaml")
    assert done.returncode == 1
    assert "FAILED telnet: expected accept, got drop by default\n" in done.stdout
    assert "left out DHCP: the kernel sends nothing from 0.0.0.0" in done.stdout


@pytest.mark.skipif(
    any(
        folder.stat().st_mode & WORLD_READABLE != WORLD_READABLE
        for folder in (EXAMPLES, *EXAMPLES.parents, *Path(sys.executable).resolve().parents)
    ),
    reason="others may not read this checkout, or run this Python",
)
@pytest.mark.long
def test_anybody_may_rehearse() -> None:
    """An ordinary user is root of a network of their own."""
    done = run("examples/three-tier", user=NOBODY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("35 passed\n")


def test_a_host_that_allows_no_private_network_says_so() -> None:
    """Exit code 5, with the missing privilege; as in a user namespace in which nobody has a name."""
    command = ("unshare", "--user", *COMMAND, "examples/1-web")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)
    assert (done.returncode, done.stdout) == (5, "")
    assert "a private network needs root, or user namespaces" in done.stderr


def test_nothing_outside_is_touched_and_nothing_is_left() -> None:
    """Where it is run, links, routes and rules stay the same; two at once do not meet."""
    with network_namespace() as namespace:
        namespace.nft("add", "table", "inet", "mine")

        def appearance() -> tuple[str, ...]:
            links = namespace.run("ip", "-brief", "link")
            return (
                links,
                namespace.run("ip", "route", "show", "table", "all"),
                namespace.nft("list", "ruleset"),
            )

        before = appearance()
        with namespace.entered():
            both = [
                subprocess.Popen(
                    (*COMMAND, "examples/2b-workbench"), cwd=EXAMPLES.parent, stdout=subprocess.PIPE
                )
                for _ in range(2)
            ]
        assert [one.wait(300) for one in both] == [0, 0]
        for one in both:
            one.communicate()
        assert appearance() == before


def test_the_links_of_the_test_send_nothing_of_their_own() -> None:
    """No link has a generated address; the near ends have one of each family, which the test gave them."""
    script = (
        "import subprocess; from sgagent.policy_test.network import Network, enter_private_network;"
        "from sgagent.dataplane.libnftables import Context;"
        "enter_private_network(); Network(('eth0', 'a'), Context()).build();"
        "print(subprocess.check_output(('ip', '-json', 'address'), text=True))"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    found = {link["ifname"]: [one["local"] for one in link["addr_info"]] for link in json.loads(done.stdout)}
    assert found == {
        "lo": ["127.0.0.1", "::1"],
        "eth0": ["172.31.254.1", "fe80::5347:0:1"],
        "far0": [],
        "a": ["172.31.254.5", "fe80::5347:1:1"],
        "far1": [],
    }
