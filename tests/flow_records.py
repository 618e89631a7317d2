"""Flow logs as hosts write them, of sessions that a test makes up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

START = datetime(2026, 1, 31, 10, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Sessions of one kind at one host."""

    near: str
    """An address of the host."""

    far: str
    port: int | None = None
    protocol: str = "tcp"
    is_outgoing: bool = False
    times: int = 3
    interface_id: str | None = None
    verdict: str = "drop"
    mode: str = "observe"


def incoming(near: str, far: str, port: int | None, protocol: str = "tcp", *, times: int = 3) -> Sessions:
    """Return sessions that the far end opens."""
    return Sessions(near=near, far=far, port=port, protocol=protocol, times=times)


def outgoing(near: str, far: str, port: int | None, protocol: str = "tcp", *, times: int = 3) -> Sessions:
    """Return sessions that the host opens."""
    return Sessions(near=near, far=far, port=port, protocol=protocol, times=times, is_outgoing=True)


def as_log(sessions: Iterable[Sessions], link: str = "eth0") -> bytes:
    """Return a flow log with the first packet of each session, one a second."""
    return "".join(_lines(sessions, link)).encode()


def _lines(sessions: Iterable[Sessions], link: str) -> Iterator[str]:
    numbers = itertools.count(1)
    for one in sessions:
        for _ in range(one.times):
            yield _line(one, next(numbers), link)


def _line(one: Sessions, number: int, link: str) -> str:
    near = {"address": one.near, "port": one.port, "network_interface_id": one.interface_id}
    far = {"address": one.far, "port": one.port, "network_interface_id": None}
    client, server = (near, far) if one.is_outgoing else (far, near)
    if one.port is not None:
        client["port"] = 32_768 + number % 28_000
    when = (START + timedelta(seconds=number)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    fields = {
        "time": when,
        "number": number,
        "interface": link,
        "direction": "egress" if one.is_outgoing else "ingress",
        "verdict": one.verdict,
        "mode": one.mode,
        "decided_by": "default",
        "rule_id": None,
        "security_group_id": None,
        "priority": None,
        "local": None,
        "family": f"ipv{ip_address(one.far).version}",
        "protocol": one.protocol,
        "source": client | {"security_group_ids": []},
        "destination": server | {"security_group_ids": []},
        "icmp_type": None,
        "is_reply": False,
        "user": None,
        "bytes": 60,
    }
    return json.dumps(fields) + "\n"
