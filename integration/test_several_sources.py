"""The daemon on signed definitions of two directories: each is followed, refused and reported by itself."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from integration.enforcer import one_group
from integration.lab import HOST_MAC, Lab, wait_for
from integration.service import NOTICED_SECONDS, Service
from sgagent.policy_test.packet_bytes import tcp
from tests.signing import KEY, signature_of

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
TRIED = range(80, 100)
INTERFACES = (
    "network_interfaces:\n"
    f"  - {{network_interface_id: eni-1, mac_address: '{HOST_MAC % 0}', addresses: [{HOST}],"
    " security_group_ids: [sg-1, sg-2]}\n"
)


def fleet(port: int) -> str:
    """Return the document of the host's interface, and of the first of its groups, which opens a port."""
    return f"version: 1\n{one_group(f'ingress accept 1 tcp {port} from 0.0.0.0/0')}\n{INTERFACES}"


def own(port: int) -> str:
    """Return the document of the other group, which opens a port."""
    document = one_group(f"ingress accept 1 tcp {port} from 0.0.0.0/0")
    return f"version: 1\n{document.replace('sg-1', 'sg-2').replace('sgr-0', 'sgr-own')}\n"


@pytest.fixture
def agent(agent: Service, tmp_path: Path) -> Service:
    """Return an agent of two directories that is not started yet."""
    tables = [f'[[source]]\npath = "{tmp_path}/{name}"\n' for name in ("fleet", "own")]
    configuration = tmp_path / "sgagent.toml"
    _, state, rest = configuration.read_text().partition("[state]")
    signature = f'[signature]\npublic_keys = ["{KEY.public}"]\n'
    configuration.write_text("".join((*tables, signature, state, rest)))
    for name in ("fleet", "own"):
        (tmp_path / name).mkdir()
    return agent


def publish(agent: Service, name: str, text: str, serial: int) -> None:
    """Write the document of a directory, and its signature."""
    place = agent.directory / name
    (place / "groups.yaml").write_text(text)
    (place / "sgagent.sig").write_bytes(signature_of({"groups.yaml": text.encode()}, serial=serial))


def wait_for_state(agent: Service, serials: list[int], *faults: str | None) -> None:
    """Wait until the serials of the directories are these, and their faults have these words, or are none."""

    def is_so() -> bool:
        answer: dict[str, Any] = agent.as_json("status")
        fleet, own = answer["sources"]
        assert [Path(one["place"]).name for one in (fleet, own)] == ["fleet", "own"]
        return (
            [one["signed"]["serial"] for one in (fleet, own)] == serials
            and all(
                one["fault"] is words if words is None else words in (one["fault"] or "")
                for one, words in zip((fleet, own), faults, strict=True)
            )
            and answer["is_refused"] is any(faults)
        )

    wait_for(is_so, f"serials {serials} and faults {faults}", NOTICED_SECONDS)


def wait_for_ports(lab: Lab, *ports: int) -> None:
    """Wait until these ports are open and no others of those that are tried."""

    def is_so() -> bool:
        seen = lab.send_ingress([tcp(CLIENT, HOST, 1024, port) for port in TRIED])
        return {port for port, passes in zip(TRIED, seen, strict=True) if passes} == set(ports)

    wait_for(is_so, f"only {ports} to be open", NOTICED_SECONDS)


@pytest.mark.parametrize("is_strict", (False, True))
def test_a_directory_that_is_away_keeps_its_part(
    agent: Service,
    one_interface: Lab,
    is_strict: bool,  # noqa: FBT001 - as said
) -> None:
    """Metric, log and a reload say so; the other directory is followed meanwhile, strict or not."""
    if is_strict:
        configuration = agent.directory / "sgagent.toml"
        configuration.write_text(configuration.read_text() + "\n[enforcement]\nstrict = true\n")
    publish(agent, "fleet", fleet(80), serial=1)
    publish(agent, "own", own(90), serial=1)
    agent.start()
    wait_for_ports(one_interface, 80, 90)
    assert agent.metric("sgagent_source_up") == 1

    away = (agent.directory / "own").rename(agent.directory / "away")
    wait_for(lambda: agent.metric("sgagent_source_up") == 0, "the directory to be missed", NOTICED_SECONDS)
    agent.wait_for_event("source_failed")
    publish(agent, "fleet", fleet(81), serial=2)
    wait_for_ports(one_interface, 81, 90)
    reload = agent.command("reload")
    assert (reload.status, "its older part stays active" in reload.errors) == (4, True)

    away.rename(agent.directory / "own")
    wait_for(lambda: agent.metric("sgagent_source_up") == 1, "the directory again", NOTICED_SECONDS)
    assert agent.command("reload").status == 0


def test_a_directory_that_is_refused_keeps_its_part(agent: Service, one_interface: Lab) -> None:
    """A forged document and a replayed one change nothing, and the other directory is followed meanwhile."""
    publish(agent, "fleet", fleet(80), serial=1)
    publish(agent, "own", own(90), serial=5)
    agent.start()
    wait_for_ports(one_interface, 80, 90)
    wait_for_state(agent, [1, 5], None, None)

    (agent.directory / "fleet" / "groups.yaml").write_text(fleet(81))
    publish(agent, "own", own(91), serial=6)
    wait_for_ports(one_interface, 80, 91)
    wait_for_state(agent, [1, 6], "refused: ", None)
    agent.wait_for_event("snapshot_refused")
    assert agent.metric("sgagent_snapshot_refused") == 1

    publish(agent, "fleet", fleet(81), serial=2)
    wait_for_ports(one_interface, 81, 91)
    wait_for_state(agent, [2, 6], None, None)

    publish(agent, "fleet", fleet(80), serial=1)
    publish(agent, "own", own(92), serial=7)
    wait_for_ports(one_interface, 81, 92)
    wait_for_state(agent, [2, 7], "older than 2", None)
