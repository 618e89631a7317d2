"""A real Prometheus reads the agent's metrics, and sees no counter go back, whatever becomes of the agent."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, host_with_address
from integration.prometheus import Prometheus, complaints, prometheus_on, why_not
from integration.service import Service, definitions, is_let_in, service_on

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
DROP_TELNET = "ingress drop 1 tcp 23 from 0.0.0.0/0"
POLICY = definitions(WEB, DROP_TELNET)
OTHER = definitions(WEB, DROP_TELNET, "ingress accept 1 udp 53 from 0.0.0.0/0")

WEB_HITS = 'sgagent_rule_packets_total{rule_id="sgr-0"}'
TELNET_HITS = 'sgagent_rule_packets_total{rule_id="sgr-1"}'
DEFAULT_DROPS = 'sgagent_default_packets_total{direction="ingress"}'
KERNEL_COUNTERS = ("rule_packets", "rule_bytes", "default_packets", "invalid_packets")

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"Prometheus can't be run: {_reason}")


wire = pytest.fixture(scope="module")(host_with_address)


@pytest.fixture(scope="module")
def prometheus(wire: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Have whatever agent runs on the host scraped; it takes a few seconds to begin."""
    with prometheus_on(wire.host, tmp_path_factory.mktemp("prometheus")) as made:
        yield made


@pytest.fixture
def agent(wire: Lab, prometheus: Prometheus, tmp_path: Path) -> Iterator[Service]:
    """Start an agent on a host that knows of no policy, and wait until no value of an earlier one is left."""
    wire.host.remove_table("sgagent")
    with service_on(wire.host, tmp_path) as made:
        made.define(POLICY)
        made.start()
        prometheus.wait_for(WEB_HITS, 0)
        yield made


def test_promtool_has_nothing_to_say(agent: Service, wire: Lab) -> None:
    """The page of an agent with traffic, a refused document and an unreachable source passes its checks."""
    is_let_in(wire, CLIENT, HOST, 80)
    assert complaints(agent.scrape()) == ""
    agent.define("version: 1\nnonsense: true\n")
    agent.wait_for_event("snapshot_refused")
    assert complaints(agent.scrape()) == ""


def test_promtool_notices() -> None:
    """The test above can fail: a counter without its suffix is complained about."""
    assert "sgagent_rules" in complaints("# TYPE sgagent_rules counter\nsgagent_rules 1\n")


def test_series_have_the_values_of_the_kernel(agent: Service, prometheus: Prometheus, wire: Lab) -> None:
    """Each hit arrives as one, under the labels of the rule; the policy in force shows as it is."""
    for port in (80, 80, 80, 23, 24):
        is_let_in(wire, CLIENT, HOST, port)
    prometheus.wait_for(WEB_HITS, 3)
    prometheus.wait_for(TELNET_HITS, 1)
    prometheus.wait_for(DEFAULT_DROPS, 1)
    prometheus.wait_for('sgagent_apply_total{outcome="applied"}', 1)
    prometheus.wait_for('sgagent_mode{interface="eth0",mode="enforce"}', 1)
    prometheus.wait_for("sgagent_source_up", 1)
    (labels,) = prometheus.query(f"last_over_time({WEB_HITS}[1m])")
    assert {
        ("interface", "eth0"),
        ("security_group_id", "sg-1"),
        ("direction", "ingress"),
        ("policy", "accept"),
    } <= labels
    assert agent.hits("sgr-0") == 3


@pytest.mark.long
def test_no_counter_goes_back(agent: Service, prometheus: Prometheus, wire: Lab) -> None:
    """Over applies, a restart and kills no series is reset, and hits of the meantime are counted once."""
    began = time.time()
    hits = 0
    for policy, end in ((OTHER, Service.stop), (POLICY, Service.kill), (OTHER, Service.kill)):
        hits += _hit(wire)
        prometheus.wait_for(WEB_HITS, hits)
        end(agent)
        hits += _hit(wire)
        agent.define(policy)
        agent.start()
        prometheus.wait_for(WEB_HITS, hits)
    resets = _of_each_counter(prometheus, f"resets({{}}{_since(began)})")
    assert len(resets) >= len(KERNEL_COUNTERS)
    assert set(resets) == {0}


def test_nothing_is_counted_while_nothing_comes(agent: Service, prometheus: Prometheus, wire: Lab) -> None:
    """There is no increase over a kill and a restart, although every series was absent for a while."""
    prometheus.wait_for(WEB_HITS, _hit(wire))
    settled = time.time()
    prometheus.wait_for_scrapes(2)
    agent.kill()
    prometheus.wait_for("up", 0)
    agent.start()
    prometheus.wait_for("up", 1)
    prometheus.wait_for_scrapes(3)
    increases = _of_each_counter(prometheus, f"increase({{}}{_since(settled)})")
    assert len(increases) >= len(KERNEL_COUNTERS)
    assert set(increases) == {0}


def test_a_reset_would_be_seen(agent: Service, prometheus: Prometheus, wire: Lab) -> None:
    """The tests above can fail: an agent that lost its totals beside a fresh table starts from zero."""
    began = time.time()
    prometheus.wait_for(WEB_HITS, _hit(wire))
    agent.kill()
    agent.namespace.nft("delete table inet sgagent")
    shutil.rmtree(agent.state)
    agent.start()
    prometheus.wait_for(WEB_HITS, 0)
    assert prometheus.value(f"resets({WEB_HITS}{_since(began)})") == 1


def _hit(lab: Lab) -> int:
    """Open sessions that the first rule lets in, and return how many."""
    assert all(is_let_in(lab, CLIENT, HOST, 80) for _ in range(3))
    return 3


def _of_each_counter(prometheus: Prometheus, expression: str) -> list[float]:
    """Return the values of an expression for each series of the kernel's counters."""
    names = (f"sgagent_{name}_total" for name in KERNEL_COUNTERS)
    return [value for name in names for value in prometheus.query(expression.format(name)).values()]


def _since(moment: float) -> str:
    """Return the selector of the time from a moment to now, the same however late it is evaluated."""
    now = time.time()
    return f"[{math.ceil(1000 * (now - moment))}ms] @ {now:.3f}"
