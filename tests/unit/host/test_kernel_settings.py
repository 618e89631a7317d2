"""Settings, services of IPVS and tables of iptables-legacy are read as the kernel writes them."""

from __future__ import annotations

import time
from pathlib import Path

from sgagent.analysis.doctor.facts import VirtualServer
from sgagent.core.model import Family
from sgagent.host.kernel_settings import read_clock, read_legacy_tables, read_settings, read_virtual_servers

IP_VS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A00000B:0050 rr
  -> 0A000063:0050      Masq    1      0          0
  -> 0A000064:0050      Masq    1      0          0
UDP  [fd00:0000:0000:0000:0000:0000:0000:000b]:0035 wrr persistent 300
  -> [fd00:0000:0000:0000:0000:0000:0000:0063]:0035      Route   1      0          0
FWM  00000007 rr
  -> 0A000063:0000      Tunnel  1      0          0
TCP  0A00000C:01BB rr
"""


def write(root: Path, name: str, text: str) -> None:
    """Write a file below the root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_services_of_ipvs_are_read(tmp_path: Path) -> None:
    """Of each the way in which servers are reached; addresses as people write them."""
    write(tmp_path, "ip_vs", IP_VS)
    assert read_virtual_servers(tmp_path / "ip_vs") == (
        VirtualServer(text="TCP 10.0.0.11:80", translates=True, routes=False),
        VirtualServer(text="UDP [fd00:0000:0000:0000:0000:0000:0000:000b]:53", translates=False, routes=True),
        VirtualServer(text="FWM 00000007", translates=False, routes=True),
        VirtualServer(text="TCP 10.0.0.12:443", translates=False, routes=False),
    )


def test_a_kernel_without_ipvs_has_no_services(tmp_path: Path) -> None:
    """Nor has one whose file is not as expected."""
    assert read_virtual_servers(tmp_path / "ip_vs") == ()
    write(tmp_path, "ip_vs", "TCP\n  ->\nTCP zz:zz\n")
    assert read_virtual_servers(tmp_path / "ip_vs") == (
        VirtualServer(text="TCP zz:zz", translates=False, routes=False),
    )


def test_the_greater_setting_of_the_reverse_path_counts(tmp_path: Path) -> None:
    """Of a link's own and that of all; the default is no link."""
    for name, value in (("all", 1), ("default", 1), ("eth0", 0), ("eth1", 2)):
        write(tmp_path, f"ipv4/conf/{name}/rp_filter", f"{value}\n")
    write(tmp_path, "ipv4/vs/conntrack", "0\n")
    write(tmp_path, "ipv4/conf/all/forwarding", "1\n")
    found = read_settings(tmp_path)
    assert dict(found.reverse_path) == {"eth0": 1, "eth1": 2}
    assert (found.virtual_servers_tracked, found.picks_up) == (False, None)
    assert found.forwarding == (Family.IPV4,)


def test_legacy_tables_are_listed(tmp_path: Path) -> None:
    """By family; none where the modules are not loaded."""
    assert read_legacy_tables(tmp_path) == ()
    write(tmp_path, "ip_tables_names", "nat\nfilter\n")
    write(tmp_path, "ip6_tables_names", "\n")
    assert read_legacy_tables(tmp_path) == ("ip filter", "ip nat")


def test_the_clock_of_this_machine_is_read(tmp_path: Path) -> None:
    """Its time, the age of a file of the package, and what the kernel says of it."""
    write(tmp_path, "file", "")
    found = read_clock(tmp_path / "file")
    assert abs(found.now - time.time()) < 60
    assert abs(found.built - found.now) < 60
    assert found.is_synchronised in {True, False, None}
