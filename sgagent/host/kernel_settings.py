"""Settings of the kernel's network, services of IPVS, the clock, and tables of iptables-legacy."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sgagent.analysis.doctor.facts import ClockFact, KernelSettings, VirtualServer
from sgagent.host.links import read_forwarding

_SETTINGS = Path("/proc/sys/net")
_NETWORK = Path("/proc/thread-self/net")


def read_settings(directory: Path = _SETTINGS) -> KernelSettings:
    """Return the settings of the network namespace of the calling process.

    Args:
        directory: of the kernel's network settings.
    """
    filters = {path.parent.name: _number(path) or 0 for path in directory.glob("ipv4/conf/*/rp_filter")}
    everywhere = filters.pop("all", 0)
    filters.pop("default", None)
    return KernelSettings(
        reverse_path=tuple(sorted((name, max(own, everywhere)) for name, own in filters.items())),
        forwarding=read_forwarding(directory),
        reverse_path_by_mark=bool(_number(directory / "ipv4/conf/all/src_valid_mark")),
        virtual_servers_tracked=_truth(directory / "ipv4/vs/conntrack"),
        picks_up=_truth(directory / "netfilter/nf_conntrack_tcp_loose"),
    )


def _number(path: Path) -> int | None:
    """Return a setting; None where it is not there, or no number."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None


def _truth(path: Path) -> bool | None:
    number = _number(path)
    return None if number is None else number != 0


def read_virtual_servers(path: Path = _NETWORK / "ip_vs") -> tuple[VirtualServer, ...]:
    """Return the services of IPVS, as ``/proc/net/ip_vs`` has them; none where the kernel has no IPVS."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(_virtual_servers(lines))


def _virtual_servers(lines: list[str]) -> Iterator[VirtualServer]:
    name, ways = "", set[str]()
    for line in [*lines, "END"]:
        words = line.split()
        if words[:1] == ["->"] and len(words) > _FORWARD:
            ways.add(words[_FORWARD])
        elif words and (words[0] in _PROTOCOLS or line == "END"):
            if name:
                yield VirtualServer(
                    text=name, translates="Masq" in ways, routes=bool(ways & {"Route", "Tunnel"})
                )
            name, ways = f"{words[0]} {_service(words[1])}" if len(words) > 1 else "", set()


_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP", "FWM"})
_FORWARD = 2


def _service(text: str) -> str:
    """Return address and port of a service as people write them; a mark stays as it is."""
    address, colon, port = text.rpartition(":")
    with contextlib.suppress(ValueError):
        if address.startswith("["):
            return f"{address}:{int(port, 16)}"
        if colon:
            return f"{ipaddress.IPv4Address(int(address, 16))}:{int(port, 16)}"
    return text


def read_clock(package: Path) -> ClockFact:
    """Return the facts of the clock.

    Args:
        package: a file of this program; it is as old as the package.
    """
    return ClockFact(now=time.time(), built=package.stat().st_mtime, is_synchronised=_is_synchronised())


_TIMEX_OCTETS = 208
_STATUS_AT = 40
"""Where struct timex has its status, behind modes and four longs."""

_UNSYNCHRONISED = 0x40
_LIBC = ctypes.CDLL(None, use_errno=True)


def _is_synchronised() -> bool | None:
    """Return whether the kernel's clock is kept by something; None where it may not be asked."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return None
    answer = ctypes.create_string_buffer(_TIMEX_OCTETS)
    if _LIBC.adjtimex(answer) < 0:
        return None
    status = int.from_bytes(answer.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    return not status & _UNSYNCHRONISED


def read_legacy_tables(directory: Path = _NETWORK) -> tuple[str, ...]:
    """Return the tables of iptables-legacy that are loaded, like ``ip nat``.

    Raises:
        PermissionError: the caller may not ask.
    """
    found = list[str]()
    for family in ("ip", "ip6"):
        with contextlib.suppress(FileNotFoundError):
            names = (directory / f"{family}_tables_names").read_text(encoding="ascii", errors="replace")
            found += (f"{family} {name}" for name in sorted(names.split()))
    return tuple(found)


def kernel_release() -> str:
    """Return the release of the running kernel."""
    return os.uname().release
