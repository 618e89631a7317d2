"""The commands that speak to an etcd cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from integration.etcdcluster import Cluster, etcd_cluster
from integration.namespaces import Namespace, network_namespace
from sgagent.cli.main import main
from sgagent.sources.etcd.host_reports import Report
from sgagent.sources.etcd.key_layout import FLEET, KeyLayout

LAYOUT = KeyLayout("/sgagent")
WEB = """
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - {rule_id: sgr-1, direction: ingress, policy: accept, protocol: tcp, port_range: 80,
         authorization_object: 0.0.0.0/0}
"""


@dataclass
class Console:
    """Commands with a configuration, on a host of the cluster's network."""

    namespace: Namespace
    cluster: Cluster
    directory: Path
    printed: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit code and output."""
        with self.namespace.entered():
            code = main([*arguments, "--config", str(self.directory / "sgagent.toml")])
        found = self.printed.readouterr()
        return code, found.out, found.err

    def publish(self, text: str, *options: str) -> tuple[int, str, str]:
        """Publish a document."""
        path = self.directory / "document.yaml"
        path.write_text(text)
        return self.run("publish", str(path), *options)

    def report(self, host: str, revision: int, *errors: str, **more: int) -> None:
        """Report as a host would, with more fields, which may be wrong."""
        report = Report(
            host=host,
            agent_version="0.1.0",
            posture="enforcing",
            version="v",
            serial=1,
            revision=revision,
            since=1000.0,
            errors=errors,
        )
        report = replace(report, **more)  # type: ignore[arg-type]  # any of its fields
        self.cluster.etcdctl("put", LAYOUT.key(FLEET, host), report.encoded().decode())


@pytest.fixture
def console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """Run a cluster of one, and give a host beside it."""
    with etcd_cluster(tmp_path, size=1) as cluster, network_namespace("console") as namespace:
        cluster.network.plug_in(namespace, "10.9.0.100")
        cluster.start()
        endpoint = cluster.members[0].endpoint
        text = f'[source]\ntype = "etcd"\nendpoints = ["{endpoint}"]\ntimeout_seconds = 10\n'
        (tmp_path / "sgagent.toml").write_text(text)
        yield Console(namespace, cluster, tmp_path, capsys)


def test_publish(console: Console) -> None:
    """The plan is printed first, object by object and rule by rule; present keys are not written."""
    code, output, _ = console.publish(WEB, "--dry-run")
    plan = (
        "+ security group sg-web\n"
        "+ rule sg-web/sgr-1: ingress accept priority 1 tcp 80/80 0.0.0.0/0\n"
        "1 key to write, 0 to delete\n"
    )
    assert (code, output) == (0, plan)
    code, output, _ = console.publish(WEB)
    assert (code, output.startswith(plan + "published: revision 2, serial ")) == (0, True)
    assert console.publish(WEB)[:2] == (
        0,
        "0 keys to write, 0 to delete\nnothing to publish: revision 2 is the same\n",
    )
    code, output, _ = console.publish(WEB.replace("80,", "443,"), "--json")
    report = json.loads(output)
    assert (code, report["revision"], report["keys_written"]) == (0, 3, 1)
    assert report["edits"] == [
        {"edit": "changed", "kind": "rule", "name": "sg-web/sgr-1", "details": ["ports: 80/80 -> 443/443"]}
    ]


def test_publish_with_a_key(console: Console) -> None:
    """An object with these keys' signature is not signed again, and no signature is lost by mistake."""
    first, second = (str(console.directory / name) for name in ("first.key", "second.key"))
    pinned = [console.run("keygen", "--out", path)[1] for path in (first, second)]
    code, output, _ = console.publish(WEB, "--key", first)
    assert (code, ", signed by " in output) == (0, True)
    assert "nothing to publish" in console.publish(WEB, "--key", first)[1]
    code, _, errors = console.publish(WEB)
    assert (code, "what is published is signed" in errors) == (2, True)
    assert console.publish(WEB, "--expires", "1h")[0] == 2
    assert console.publish(WEB, "--unsigned", "--key", first)[0] == 2

    configuration = console.directory / "sgagent.toml"
    plain = configuration.read_text()
    configuration.write_text(f"{plain}[state]\ndirectory = '{console.directory}'\n[signature]\n{pinned[1]}")
    code, output, _ = console.run("check")
    assert (code, "signature_unknown_key" in output or "none of which is pinned" in output) == (2, True)
    code, output, _ = console.publish(WEB, "--key", first, "--key", second, "--expires", "30d", "--json")
    report = json.loads(output)
    assert (code, report["keys_written"], len(report["signed_by"])) == (0, 1, 2)
    assert report["expires_at"].endswith("Z")
    assert console.run("check")[:2] == (0, "ok: nothing wrong\n")

    configuration.write_text(plain)
    code, output, _ = console.publish(WEB, "--unsigned", "--json")
    assert (code, json.loads(output)["keys_deleted"]) == (0, 1)
    code, _, errors = console.publish("version: 1\n", "--allow-empty", "--key", first)
    assert (code, "can't be signed" in errors) == (2, True)


def test_what_is_not_published(console: Console) -> None:
    """Documents with errors, empty ones, and another publisher's publication are refused."""
    dangling = "version: 1\nnetwork_interfaces: [{network_interface_id: eni-1, security_group_ids: [sg-9]}]\n"
    for text, told in (("version: 1\nnonsense: 1\n", "nonsense"), (dangling, "sg-9")):
        code, output, errors = console.publish(text)
        assert (code, output, told in errors) == (2, "", True)
    assert console.publish(WEB)[0] == 0
    code, _, errors = console.publish("version: 1\n")
    assert (code, "--allow-empty" in errors) == (2, True)
    code, output, _ = console.publish("version: 1\n", "--allow-empty", "--json")
    assert (code, json.loads(output)["keys_deleted"]) == (0, 1)
    marker = console.cluster.etcdctl("get", "--print-value-only", LAYOUT.meta).strip()
    console.cluster.etcdctl("put", LAYOUT.meta, marker.replace('"complete"', '"publishing"'))
    code, _, errors = console.publish(WEB)
    assert (code, "has been publishing since" in errors) == (2, True)
    assert console.publish(WEB, "--take-over")[0] == 0


def test_commands_read_everything(console: Console) -> None:
    """Those that look at the configured source see all that is published."""
    console.publish(WEB)
    code, output, errors = console.run("check")
    assert (code, output) == (0, "ok: nothing wrong\n"), errors
    packet = ["--source", "192.0.2.1", "--destination", "10.0.0.1", "--protocol", "tcp", "--port", "80"]
    code, output, errors = console.run("explain", "ingress", *packet, "--interface", "eth0=sg-web")
    assert (code, "sgr-1" in output) == (0, True), errors


def test_fleet(console: Console) -> None:
    """Hosts that refuse or lag come first, and are waited for."""
    assert console.run("fleet", "status")[:2] == (0, "0 hosts; nothing is published\n")
    console.publish(WEB)
    revision = 2
    console.report("web-1", revision)
    console.report("web-2", revision - 1)
    console.report("web-3", revision, "error: it is wrong")
    code, output, _ = console.run("fleet", "status")
    lines = output.splitlines()
    assert code == 0
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["web-3", "refusing", "2"],
        ["web-2", "lagging", "1"],
        ["web-1", "current", "2"],
    ]
    assert lines[1].endswith("error: it is wrong")
    assert lines[4] == "3 hosts: 1 refusing, 1 lagging, 1 current; newest publication: revision 2"
    for field, value, told in (
        ("kernel_refused", True, "kernel refused"),
        ("drift_unhealed", True, "could not repair it"),
        ("drift_repaired", 1, "repaired 1 time"),
    ):
        console.report("web-1", revision, **{field: value})
        output = console.run("fleet", "status")[1]
        assert [line for line in output.splitlines() if told in line and "web-1" in line], output
    console.report("web-1", revision)
    report = json.loads(console.run("fleet", "status", "--json")[1])
    assert [host["host"] for host in report["hosts"]] == ["web-3", "web-2", "web-1"]

    code, output, errors = console.run("fleet", "wait", "--timeout", "1s")
    assert (code, output) == (1, "")
    assert errors == "sgagent: 1 of 3 hosts not at revision 2: web-2 (lagging)\n"
    console.report("web-2", revision)
    assert console.run("fleet", "wait", "2")[:2] == (0, "3 hosts at revision 2 or later\n")
    assert console.run("fleet", "wait", "--hosts", "4", "--timeout", "0s")[0] == 1
    assert console.run("fleet", "wait", "--timeout", "soon")[0] == 2
    assert console.run("fleet", "status", "7")[0] == 2


def test_a_cluster_that_is_not_there(console: Console) -> None:
    """It is told with the end point and the reason."""
    console.cluster.members[0].kill()
    code, _, errors = console.run("fleet", "status")
    assert (code, "http://10.9.0.1:2379: connection refused" in errors) == (4, True)
