"""The collection for Ansible: booted machines are rolled out over SSH, and none is cut off for good."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.controller import ADDRESS, Controller, controller, why_not as why_no_controller
from integration.machine import Machine, why_not
from integration.namespaces import CommandError, run
from integration.nginx import PORT, nginx_in, why_not as why_no_nginx
from integration.package import ROOT, built, keys, publish, why_no_repository, why_not as why_no_package
from tests.patience import PATIENCE

HOSTS = {"web-1": "10.30.0.11", "web-2": "10.30.0.12", "web-3": "10.30.0.13"}
FOLDER = "/etc/sgagent/groups.d"
STRANGER = "10.30.0.99"

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(_reason := why_not() or why_no_package() or why_no_controller()),
        reason=f"no machine can be rolled out: {_reason}",
    ),
]

SOON_GIVEN_UP = {"connect_within": int(5 * PATIENCE), "confirm_within": int(5 * PATIENCE) + 20}
"""Where no new connection is made, all of this time is waited; a last attempt may take 10 seconds."""

GROUP = """\
  - security_group_id: {name}
    rules:
      - {{rule_id: {name}-ssh, direction: ingress, policy: accept, protocol: tcp, port_range: 22,
         authorization_object: {admin}}}
      - {{rule_id: {name}-web, direction: ingress, policy: accept, protocol: tcp, port_range: {web},
         authorization_object: 0.0.0.0/0}}
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Make the folder of documents on the controller."""
    folder = tmp_path / "groups.d"
    folder.mkdir()
    define(folder)
    return folder


def define(folder: Path, *, web: str = "80", cut: str = "") -> None:
    """Write a group for each host, one of which may let in somebody else than the controller by SSH."""
    groups = "".join(
        GROUP.format(name=f"sg-{name}", admin=STRANGER if name == cut else ADDRESS, web=web) for name in HOSTS
    )
    interfaces = "".join(
        f"  - {{network_interface_id: eni-{name}, addresses: [{address}], security_group_ids: [sg-{name}]}}\n"
        for name, address in HOSTS.items()
    )
    (folder / "groups.yaml").write_text(f"version: 1\nsecurity_groups:\n{groups}")
    (folder / "interfaces.yaml").write_text(f"version: 1\nnetwork_interfaces:\n{interfaces}")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Controller]:
    """Boot one machine, and a controller."""
    with controller(tmp_path, {"web-1": HOSTS["web-1"]}) as made:
        yield made


def state(machine: Machine) -> tuple[str, str, object, dict[str, str]]:
    """Return posture, version and pending trial of a machine's agent, and the documents."""
    answer: dict[str, Any] = json.loads(machine.run("sh", "-c", "sgagent status --json || :"))
    texts = {path.name: path.read_text() for path in machine.path(FOLDER).iterdir()}
    return answer["posture"], answer["snapshot_version"], answer["pending"], texts


def texts(folder: Path) -> dict[str, str]:
    """Return the documents of the controller."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_host_is_rolled_out_and_not_cut_off(desk: Controller, documents: Path) -> None:
    """A host goes from nothing to enforcing; definitions that are wrong, or cut it off, are not kept."""
    machine = desk.machines["web-1"]
    wanted: dict[str, str | Path] = {"package": built(), "documents": documents, "mode": "enforce"}
    machine.write(f"{FOLDER}/former.yaml", "version: 1\n")
    first = desk.play(**wanted)
    assert first.status == 0, first.output
    assert first.hosts["web-1"][0] > 0
    before = state(machine)
    assert before[::3] == ("enforcing", texts(documents))
    assert machine.show("sgagent-undo.timer", "ActiveState") == "inactive"
    again = desk.play(**wanted)
    assert again.hosts == {"web-1": (0, 0)}, again.output

    define(documents, web="[80, 443]")
    checked = desk.play("--check", "--diff", documents=documents, mode="enforce")
    assert checked.hosts["web-1"][1] == 0, checked.output
    assert "port_range: [80, 443]" in checked.output
    assert "eth0 ingress: tcp 443 from" in checked.output
    define(documents, web="eighty")
    refused = desk.play(documents=documents, mode="observe")
    assert refused.hosts == {"web-1": (0, 1)}, refused.output
    assert "sgagent check refuses the documents" in refused.output
    define(documents, cut="web-1")
    cut = desk.play(documents=documents, **SOON_GIVEN_UP)
    assert cut.status != 0
    assert "web-1 did not keep the change" in cut.output
    assert state(machine) == before


INVENTORY = """\
all:
  hosts:
    gone: {ansible_host: 192.0.2.1}
    here: {ansible_connection: local}
  vars: {ansible_user: root, ansible_python_interpreter: /usr/bin/python3}
"""


def test_a_play_ends_at_a_host_that_is_not_reached(tmp_path: Path) -> None:
    """The change itself may have cut the host off: no other host gets it."""
    place = tmp_path / "ansible_collections" / "sgagent" / "host"
    place.parent.mkdir(parents=True)
    place.symlink_to(ROOT / "ansible")
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    with pytest.raises(CommandError, match="not reached: gone; no other host is changed") as raised:
        run(
            *("env", "LC_ALL=C.UTF-8", f"HOME={tmp_path}", f"ANSIBLE_COLLECTIONS_PATH={tmp_path}"),
            *("unshare", "--net", "ansible-playbook", "sgagent.host.rollout", "--check"),
            *("-i", str(tmp_path / "hosts.yml")),
        )
    assert "Look for the agent" not in raised.value.output


CONFIGURATION = """\
[enforcement]
sessions = "keep"
[source]
path = "/etc/sgagent/groups.d"
"""
CLOSED = '[[interface]]\nname = "eth0"\nsecurity_group_ids = []\n'


def test_ansible_finds_documentation_and_packs_the_collection(tmp_path: Path) -> None:
    """The users' documentation is well-formed, and the installed collection has all of it."""
    place = tmp_path / "ansible_collections" / "sgagent" / "host"
    place.parent.mkdir(parents=True)
    place.symlink_to(ROOT / "ansible")
    found = ("env", "LC_ALL=C.UTF-8", f"HOME={tmp_path}", f"ANSIBLE_COLLECTIONS_PATH={tmp_path}")
    for kind, names in {"module": ("documents", "mode"), "role": ("sgagent",)}.items():
        told = run(
            *found, "ansible-doc", "--json", "--type", kind, *(f"sgagent.host.{name}" for name in names)
        )
        assert set(json.loads(told)) == {f"sgagent.host.{name}" for name in names}
    run(
        *found, "ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(ROOT / "ansible")
    )
    (archive,) = tmp_path.glob("sgagent-host-*.tar.gz")
    with tarfile.open(archive) as opened:
        packed = set(opened.getnames())
    assert {"README.md", "plugins/modules/documents.py", "roles/sgagent/tasks/back.yml"} <= packed


@pytest.mark.skipif(bool(_lacking := why_no_nginx() or why_no_repository()), reason=_lacking)
def test_a_play_ends_at_the_host_that_it_cut_off(tmp_path: Path, documents: Path) -> None:
    """Three hosts from a repository; old connections stay (§6.3): only a new one shows the fault."""
    with (
        controller(tmp_path, HOSTS) as desk,
        nginx_in(desk.namespace, tmp_path / "nginx", ADDRESS) as server,
        keys("releases@packages.invalid") as key,
    ):
        url = f"https://{ADDRESS}:{PORT}"
        publish(server.site, url, key, built())
        for machine in desk.machines.values():
            trust(machine, server.authority.file)
        wanted: dict[str, Any] = {
            "repository": url,
            "repository_key": server.site / "sgagent.asc",
            "configuration": CONFIGURATION,
            "files": [{"src": str(server.authority.file), "dest": "/etc/sgagent/authority.pem"}],
            "documents": documents,
            "mode": "observe",
            "serial": 3,
        }
        checked = desk.play("--check", "--diff", **wanted)
        assert "sgagent is not installed yet" in checked.output
        assert {failed for _, failed in checked.hosts.values()} == {0}, checked.output
        assert not desk.machines["web-1"].path("/etc/apt/sources.list.d/sgagent.sources").exists()
        first = desk.play(**wanted)
        assert {failed for _, failed in first.hosts.values()} == {0}, first.output
        again = desk.play(**wanted)
        assert again.hosts == dict.fromkeys(HOSTS, (0, 0)), again.output
        assert {state(machine)[0] for machine in desk.machines.values()} == {"observing"}
        wanted["mode"] = "default"
        enforced = desk.play(**wanted)
        assert {failed for _, failed in enforced.hosts.values()} == {0}, enforced.output
        before = {name: state(machine) for name, machine in desk.machines.items()}
        assert {posture for posture, *_ in before.values()} == {"enforcing"}
        assert desk.machines["web-1"].run("stat", "--format=%U %G %a", "/etc/sgagent/authority.pem") == (
            "root sgagent 640\n"
        )

        wrong = desk.play(configuration='[enforcement]\nmode = "obey"\n')
        assert wrong.hosts == {"web-1": (0, 1)}, wrong.output
        assert "enforcement.mode" in wrong.output
        closed = desk.play(**(wanted | {"configuration": CONFIGURATION + CLOSED, "serial": 1}))
        assert set(closed.hosts) == {"web-1"}, closed.output
        for machine in desk.machines.values():
            assert machine.path("/etc/sgagent/sgagent.toml").read_text() == CONFIGURATION
        assert {name: state(machine) for name, machine in desk.machines.items()} == before

        define(documents, web="[80, 443]", cut="web-2")
        cut = desk.play(**(wanted | {"serial": 1}))
        assert {name: failed for name, (_, failed) in cut.hosts.items()} == {"web-1": 0, "web-2": 1}, (
            cut.output
        )
        assert "web-2 did not keep the change" in cut.output
        after = {name: state(machine) for name, machine in desk.machines.items()}
        assert after["web-1"][::3] == ("enforcing", texts(documents))
        assert [after[name] for name in ("web-2", "web-3")] == [before[name] for name in ("web-2", "web-3")]
        # A new connection is made once the trial has ended.
        late = desk.play(
            "--limit", "web-2", documents=documents, connect_within=int(40 * PATIENCE), confirm_within=5
        )
        assert late.status != 0
        assert "web-2 did not keep the change: sgagent: there is no trial to confirm" in late.output
        assert state(desk.machines["web-2"]) == before["web-2"]


def trust(machine: Machine, authority: Path) -> None:
    """Have a machine trust the repository's server, and know no other repository."""
    shutil.rmtree(machine.path("/etc/apt/sources.list.d"))
    machine.path("/etc/apt/sources.list").unlink(missing_ok=True)
    machine.path("/etc/apt/sources.list.d").mkdir()
    machine.write("/etc/ssl/authority.pem", authority.read_text())
    machine.write(
        "/etc/apt/apt.conf.d/99test",
        'Acquire::https::CAInfo "/etc/ssl/authority.pem"; Acquire::https::Proxy "DIRECT";\n',
    )
