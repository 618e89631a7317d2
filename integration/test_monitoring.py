"""The queries of monitoring/ are tried: by promtool, and by a Prometheus that has scraped an agent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, host_with_address, wait_for
from integration.prometheus import PROMTOOL, RUNBOOK_URL, Prometheus, prometheus_on, why_not
from integration.service import Service, definitions, is_let_in, service_on
from tests.unit.test_monitoring import RULES, TESTS, alerts, panels, rules

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
POLICY = definitions(
    "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress drop 1 tcp 23 from 0.0.0.0/0"
).replace("port_range: 80", "limit_per_source: 10/minute, port_range: 80")
OTHER = POLICY.replace("port_range: 23", "port_range: 24")
OBSERVE = '[enforcement]\nmode = "observe"\n'

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"Prometheus can't be run: {_reason}")


def promtool(*arguments: str | Path) -> str:
    """Run promtool, and return its output."""
    done = subprocess.run((PROMTOOL, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules() -> None:
    """All of them."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", "--syntax-only", RULES.parent / "scrape.yaml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.name))
def test_alerts_fire_when_they_should(path: Path) -> None:
    """And neither before nor beside that."""
    assert "SUCCESS" in promtool("test", "rules", path)


wire = pytest.fixture(scope="module")(host_with_address)


@pytest.fixture(scope="module")
def prometheus(wire: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Have whatever agent runs on the host scraped, and the rules evaluated."""
    with prometheus_on(wire.host, tmp_path_factory.mktemp("prometheus"), rules=[RULES]) as made:
        yield made


@pytest.fixture(scope="module")
def agent(wire: Lab, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Have an agent that has lived: that has observed, enforced, changed, and judged meanwhile."""
    with service_on(wire.host, tmp_path_factory.mktemp("agent")) as made:
        made.verifies = True
        made.configure(OBSERVE)
        made.define(POLICY)
        made.start()
        prometheus.wait_for_scrapes(2)
        _send(wire)
        prometheus.wait_for_scrapes(2)
        made.stop()
        made.configure('[enforcement]\nsource_check = "on"\n')
        made.start()
        prometheus.wait_for_scrapes(2)
        made.define(OTHER)
        made.wait_for_event("ruleset_applied", count=2)
        _send(wire)
        prometheus.wait_for_scrapes(2)
        yield made


def _send(wire: Lab) -> None:
    """Have something accepted, dropped by a rule, and dropped by default."""
    for port in (80, 23, 24, 25):
        is_let_in(wire, CLIENT, HOST, port)


def shown_expressions() -> list[str]:
    """Return the expressions of the dashboard as Grafana sends them when everything is chosen."""
    chosen = {"$job": "sgagent", "$instance": ".*", "$interface": ".*", "$__rate_interval": "1m"}
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    for name, value in chosen.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def test_every_panel_has_something_to_show(agent: Service, prometheus: Prometheus) -> None:
    """No expression is empty for an agent that has lived, and none is refused."""
    assert agent.pid
    for expression in shown_expressions():
        prometheus.wait_until(expression)


def test_nothing_is_alarming_about_an_agent_that_is_well(agent: Service, prometheus: Prometheus) -> None:
    """No alert's expression holds, and the recorded series are there."""
    assert agent.pid
    for alert in alerts().values():
        prometheus.wait_while(alert["expr"])
    for rule in rules():
        if "record" in rule:
            prometheus.wait_until(rule["expr"])


def test_what_is_wrong_is_seen(agent: Service, prometheus: Prometheus) -> None:
    """The expressions hold on a host where that is so which they are about."""
    agent.define("version: 1\nnonsense: true\n")
    agent.wait_for_event("snapshot_refused")
    _wait_until_alarming(prometheus, "SgagentDefinitionsRefused")
    link = f"{RUNBOOK_URL}#a-document-is-refused"
    wait_for(lambda: prometheus.annotation("SgagentDefinitionsRefused", "runbook_url") == link, link)
    agent.define(OTHER.replace("security_group_ids: [sg-1]", "security_group_ids: []"))
    _wait_until_alarming(prometheus, "SgagentInterfaceWithoutGroups")
    (agent.documents / "policy.yaml").unlink()
    _wait_until_alarming(prometheus, "SgagentSourceDown")
    agent.kill()
    _wait_until_alarming(prometheus, "SgagentDown")


def _wait_until_alarming(prometheus: Prometheus, name: str) -> None:
    """Wait until the expression of an alert holds; how long it must hold is promtool's to try."""
    prometheus.wait_until(alerts()[name]["expr"])
