"""Have firewalld enforce a policy: an ipset for each group, and a rich rule with a priority for each rule.

Files are what it reads at its start and when it is told to reload; one member or one rule comes quickest
by a call over D-Bus. The zone drops what no rule names. Priorities keep the order, drops before accepts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.peers.contender import (
    EVERYONE,
    Contender,
    Newcomer,
    Took,
    is_group,
    members_of,
    ports_of,
    rules_of,
)
from bench.peers.place import LIMIT_SECONDS, Place, PlaceError, Ran
from bench.policies import INTERFACE, BenchPolicy
from integration.lab import wait_for
from integration.service import is_alive
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedRule

_ZONE = "bench"
_SERVICE = "org.fedoraproject.FirewallD1"
_OBJECT = "/org/fedoraproject/FirewallD1"

_CONFIGURATION = f"DefaultZone={_ZONE}\nNftablesCounters=yes\nLogDenied=off\n"
"""All else is as Debian has it; a counter in each rule, as the others have."""

_BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_destination="*"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
"""


class Firewalld(Contender):
    """firewalld, with a message bus of its own."""

    def __init__(self, place: Place) -> None:
        """Take the place; nothing runs yet."""
        super().__init__(place)
        self._pid = 0

    def start(self, policy: BenchPolicy) -> Took:
        """Start the daemon, and wait until it says that it is running."""
        self.place.write({"/etc/dbus-bench.conf": _BUS, "/run/dbus/here": "", **firewalld_files(policy)})
        self.place.launch("dbus-daemon", "--nofork", "--nopidfile", "--config-file=/etc/dbus-bench.conf")
        began = time.perf_counter()
        self._pid = self.place.launch("/usr/sbin/firewalld", "--nofork", "--nopid")
        wait_for(self._is_running, "firewalld to be running", LIMIT_SECONDS)
        return Took(time.perf_counter() - began)

    def add_member(self, newcomer: Newcomer) -> Took:
        """Add an entry to the ipset at run time, over D-Bus."""
        arguments = (f"string:{newcomer.group.group_id}", f"string:{newcomer.address}")
        return Took.of(self._call("ipset.addEntry", *arguments))

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Add a rich rule at run time, over D-Bus."""
        return Took.of(
            self._call("zone.addRichRule", f"string:{_ZONE}", f"string:{rich_rule(rule)}", "int32:0")
        )

    def reload(self, policy: BenchPolicy) -> Took:
        """Write the zone and the ipsets, and have them read again.

        That is what ``firewall-cmd --reload`` asks for too, but it gives up waiting after 25 seconds.
        """
        self.place.write(firewalld_files(policy))
        return Took.of(self._call("reload"))

    def processes(self) -> tuple[int, ...]:
        """Return the daemon; the bus is not counted."""
        return (self._pid,)

    def _is_running(self) -> bool:
        if not is_alive(self._pid):
            raise PlaceError(f"firewalld has ended:\n{self.place.log}")
        property_of = (f"string:{_SERVICE}", "string:state")
        try:
            return "RUNNING" in self._send("org.freedesktop.DBus.Properties.Get", *property_of).output
        except PlaceError:
            return False  # there is no bus yet, or nobody of that name on it

    def _call(self, method: str, *arguments: str) -> Ran:
        return self._send(f"{_SERVICE}.{method}", *arguments)

    def _send(self, method: str, *arguments: str) -> Ran:
        wait = f"--reply-timeout={1000 * LIMIT_SECONDS:.0f}"
        options = ("--system", "--print-reply=literal", wait, f"--dest={_SERVICE}")
        return self.place.run("dbus-send", *options, _OBJECT, method, *arguments)


def firewalld_files(policy: BenchPolicy) -> dict[str, str]:
    """Return all of firewalld's files, by their names."""
    files = {
        "/etc/firewalld/firewalld.conf": _CONFIGURATION,
        f"/etc/firewalld/zones/{_ZONE}.xml": _zone(policy),
    }
    for group in policy.groups:
        entries = "".join(f"  <entry>{address}</entry>\n" for address in members_of(group))
        files[f"/etc/firewalld/ipsets/{group.group_id}.xml"] = f'<ipset type="hash:ip">\n{entries}</ipset>\n'
    return files


def _zone(policy: BenchPolicy) -> str:
    lines = (
        '<?xml version="1.0" encoding="utf-8"?>',
        '<zone target="DROP">',
        f'  <interface name="{INTERFACE}"/>',
        *(f"  {line}" for rule in rules_of(policy.resolved) for line in _rule(rule)),
        "</zone>\n",
    )
    return "\n".join(lines)


def _rule(rule: ResolvedRule) -> Iterator[str]:
    yield f'<rule family="ipv4" priority="{_priority(rule)}">'
    if rule.peer.name != EVERYONE:
        yield f"  <source {_source(rule)}/>"
    yield f'  <port port="{ports_of(rule, "-")}" protocol="{rule.protocols[0]}"/>'
    yield f"  <{rule.policy.value}/>"
    yield "</rule>"


def rich_rule(rule: ResolvedRule) -> str:
    """Return a rule in the language of rich rules."""
    source = "" if rule.peer.name == EVERYONE else f"source {_source(rule)} "
    port = f'port port="{ports_of(rule, "-")}" protocol="{rule.protocols[0]}"'
    return f'rule family="ipv4" priority="{_priority(rule)}" {source}{port} {rule.policy.value}'


def _source(rule: ResolvedRule) -> str:
    kind = "ipset" if is_group(rule.peer) else "address"
    return f'{kind}="{rule.peer.name}"'


def _priority(rule: ResolvedRule) -> int:
    """Return a priority in which drops of a priority come before its accepts; those alike can't disagree."""
    return 2 * rule.priority + (rule.policy is Policy.ACCEPT)
