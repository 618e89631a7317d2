"""Ports of the SSH server are found in its configuration and in socket units."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.host.login_ports import configured_ssh_ports


@pytest.mark.parametrize(
    ("name", "text", "ports"),
    (
        ("etc/ssh/sshd_config", "#Port 22\nPort 2222\n", {2222}),
        ("etc/ssh/sshd_config", 'port="2022"\nPORT 2023 # second\n', {2022, 2023}),
        ("etc/ssh/sshd_config", "ListenAddress 0.0.0.0:2200\nListenAddress [::]:2201\n", {2200, 2201}),
        ("etc/ssh/sshd_config", "ListenAddress 2001:db8::22\nListenAddress 192.0.2.1\n", set()),
        ("etc/ssh/sshd_config.d/port.conf", "Port 22022\n", {22022}),
        ("etc/systemd/system/ssh.socket.d/port.conf", "[Socket]\nListenStream=\nListenStream=2222\n", {2222}),
        ("run/systemd/generator/ssh.socket.d/addresses.conf", "ListenStream=[::]:2223\n", {2223}),
        ("etc/ssh/sshd_config", "Port 99999\nPort none\nGatewayPorts 7\n", set()),
    ),
)
def test_ports_are_found(tmp_path: Path, name: str, text: str, ports: set[int]) -> None:
    """Comments and addresses without a port are none."""
    place = tmp_path / name
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert configured_ssh_ports(tmp_path) == ports


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Like a directory in the place of a file, or no configuration."""
    (tmp_path / "etc/ssh/sshd_config").mkdir(parents=True)
    assert configured_ssh_ports(tmp_path) == frozenset()
