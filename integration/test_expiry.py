"""A rule that expires under traffic: the last packet that passes, and the first that does not (§12.4)."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime

import pytest

from integration.lab import Lab, wait_for
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in as is_admitted
from integration.traffic import traffic
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
STAYS, LEAVES = "198.51.100.7", "198.51.100.8"
LEAVES6 = "2001:db8:8::1"
WATCH_SECONDS = 0.6
LIFE_SECONDS = 6.0


def is_let_in(lab: Lab, source: str, destination: str) -> bool:
    """Return whether the first packet of a session to port 22 gets in."""
    return is_admitted(lab, ipaddress.ip_address(source), ipaddress.ip_address(destination), 22)


def with_end(end: float) -> str:
    """Return definitions with a rule for ever, and one of both families that ends."""
    text = definitions(f"ingress accept 1 tcp 22 from {STAYS}", addresses=f"{HOST}, '{HOST6}'")
    lasting = next(line for line in text.splitlines() if "sgr-0" in line)
    ending = lasting.replace("sgr-0", "sgr-ends").replace(f"'{STAYS}'", STAYS).replace(f'"{STAYS}"', STAYS)
    instant = datetime.fromtimestamp(end, UTC).isoformat()
    ending = ending.replace(STAYS, f"[{LEAVES}, '{LEAVES6}'], expires: '{instant}'")
    return text.replace(lasting, f"{lasting}\n{ending}")


def test_rules_end_in_traffic(agent: Service, one_interface: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sessions stop in both directions at the instant, others lose nothing, and no new one gets in."""
    agent.define(with_end(time.time() + 3_600))
    agent.start()
    with traffic(one_interface) as busy:
        peer, host = one_interface.peer, one_interface.host
        busy.open("stays", peer, STAYS, host, (HOST, 22))
        busy.open("leaves", peer, LEAVES, host, (HOST, 22))
        busy.open("leaves over IPv6", peer, LEAVES6, host, (HOST6, 22))
        with busy.running():
            busy.wait_until_all_talk()
            end = time.time() + LIFE_SECONDS * PATIENCE
            agent.define(with_end(end))
            assert is_let_in(one_interface, LEAVES, HOST)
            assert time.time() < end, "the machine is too slow for this test"
            wait_for(lambda: time.time() > end, "the end of the rule")
            wait_for(lambda: len(agent.events("ruleset_applied")) == 2, "the table without the rule")
            noticed = time.time() - end
            assert noticed < NOTICED_SECONDS * PATIENCE
            silent = set(busy.silent_since(time.perf_counter(), WATCH_SECONDS))
            assert silent == {"leaves", "leaves over IPv6"}
            to_wall = time.time() - time.perf_counter()
            last = max(busy.sessions[name].last_heard for name in silent) + to_wall - end
            assert -WATCH_SECONDS < last < NOTICED_SECONDS * PATIENCE
            assert not is_let_in(one_interface, LEAVES, HOST)
            assert not is_let_in(one_interface, LEAVES6, HOST6)
            assert is_let_in(one_interface, STAYS, HOST)
            busy.settle({"stays"})
    with capsys.disabled():
        print(f"\n  last packet {last * 1000:+.1f} ms from the end, table changed {noticed * 1000:+.1f} ms")


def test_an_agent_that_starts_again_does_not_revive_it(agent: Service, one_interface: Lab) -> None:
    """The latest time is kept; a rule that ended while no agent ran has ended too."""
    agent.define(with_end(time.time() + 3_600))
    agent.start()
    assert is_let_in(one_interface, LEAVES, HOST)
    end = time.time() + LIFE_SECONDS * PATIENCE
    agent.define(with_end(end))
    assert agent.command("reload").status == 0
    agent.stop()
    wait_for(lambda: time.time() > end, "the end of the rule")
    assert is_let_in(one_interface, LEAVES, HOST), "nobody was there to end it"
    agent.start()
    assert not is_let_in(one_interface, LEAVES, HOST)
