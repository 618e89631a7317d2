"""TLS, users and least rights at a real etcd cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from integration.etcdcluster import Cluster, etcd_cluster
from integration.namespaces import Namespace, network_namespace
from sgagent.cli.main import main
from sgagent.core.errors import SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import CallRefusedError, GrpcStatus
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import PutKey
from sgagent.sources.etcd.source import EtcdSource
from tests.certificates import Authority

LAYOUT = KeyLayout("/sgagent")
WEB = "version: 1\nsecurity_groups: [{security_group_id: sg-web}]\n"
DOCS = Path(__file__).parent.parent / "docs" / "etcd.md"


def secret(path: Path, text: str) -> Path:
    """Write a file that nobody else reads."""
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Make a host beside the cluster."""
    with network_namespace("client") as made:
        yield made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make who signs certificates."""
    return Authority(tmp_path)


def encrypted(authority: Authority, *, days: int = 1) -> tuple[str, ...]:
    """Return the options of a cluster of one with TLS that asks for clients' certificates."""
    server = authority.issue("10.9.0.1", name="etcd", days=days)
    return (
        f"--cert-file={server.certificate}",
        f"--key-file={server.key}",
        "--client-cert-auth",
        f"--trusted-ca-file={authority.file}",
    )


@pytest.fixture
def guarded(tmp_path: Path, namespace: Namespace) -> Iterator[Cluster]:
    """Run a cluster of one that knows users, with the roles that docs/etcd.md names."""
    with etcd_cluster(tmp_path, size=1) as cluster:
        cluster.network.plug_in(namespace, "10.9.0.100")
        cluster.start()
        for line in documented_commands():
            cluster.etcdctl(*line)
        cluster.etcdctl("user", "add", "root:top")
        cluster.etcdctl("user", "grant-role", "root", "root")
        cluster.etcdctl("auth", "enable")
        yield cluster


def documented_commands() -> Iterator[list[str]]:
    """Return the commands of docs/etcd.md, with passwords that are the users' names."""
    lines = re.findall(r"^\$ etcdctl (.*)$", DOCS.read_text(), re.MULTILINE)
    assert len(lines) > 8
    for part in (part for line in lines for part in line.split(" && etcdctl ")):
        words = part.split()
        if words[:2] == ["user", "add"]:
            words[2] += f":{words[2]}"
        yield words


def as_user(cluster: Cluster, directory: Path, user: str) -> EtcdSourceSettings:
    """Return settings of a user with its password."""
    return cluster.settings(user=user, password_file=secret(directory / user, f"{user}\n"))


@pytest.mark.long
def test_the_documented_rights_are_enough_and_no_more(
    guarded: Cluster, namespace: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agents read and report, publishers write; an agent can't publish."""
    document = tmp_path / "web.yaml"
    document.write_text(WEB)
    configurations = {}
    for user in ("agent", "publisher"):
        password = secret(tmp_path / f"{user}-password", user)
        configurations[user] = tmp_path / f"{user}.toml"
        configurations[user].write_text(
            f'[source]\ntype = "etcd"\nendpoints = ["{guarded.members[0].endpoint}"]\n'
            f'user = "{user}"\npassword_file = "{password}"\n'
        )
    with namespace.entered():
        for user, code in (("agent", 5), ("publisher", 0)):
            assert main(["publish", str(document), "--config", str(configurations[user])]) == code
        agent = as_user(guarded, tmp_path, "agent")
        source = EtcdSource(agent, Limits())
        assert source.fetch().snapshot.security_groups
        client = Client(agent)
        client.commit((), [PutKey(LAYOUT.key("fleet", "web-1"), b"{}")])
        for key in (LAYOUT.meta, LAYOUT.key("members", "sg-web", "web-1"), "/other"):
            with pytest.raises(CallRefusedError) as caught:
                client.commit((), [PutKey(key, b"")])
            assert caught.value.code == GrpcStatus.PERMISSION_DENIED
        client.close()
    assert "permission denied" in capsys.readouterr().err


@pytest.mark.long
def test_who_is_not_let_in_is_told_why(guarded: Cluster, namespace: Namespace, tmp_path: Path) -> None:
    """A wrong password, none at all, and one that everybody can read."""
    agent = as_user(guarded, tmp_path, "agent")
    open_file = tmp_path / "open"
    open_file.write_text("agent")
    open_file.chmod(0o644)
    with namespace.entered():
        for settings, told in (
            (replace(agent, password_file=secret(tmp_path / "wrong", "x")), "authentication failed"),
            (replace(agent, user=None, password_file=None), "user name is empty"),
            (replace(agent, password_file=open_file), "everybody can read"),
            (replace(agent, password_file=tmp_path / "missing"), "no such file"),
        ):
            with pytest.raises(SourceUnavailableError, match=f"(?i){told}"):
                EtcdSource(settings, Limits()).fetch()


@pytest.mark.long
def test_a_token_no_longer_taken_is_replaced(guarded: Cluster, namespace: Namespace, tmp_path: Path) -> None:
    """As it does when rights change: the token of before is then no longer taken."""
    with namespace.entered():
        client = Client(as_user(guarded, tmp_path, "agent"))
        before = client.count(LAYOUT.all_of("groups"))
        for words in (("role", "add", "another"), ("role", "delete", "another")):
            guarded.etcdctl(*words, user="root:top")
        assert client.count(LAYOUT.all_of("groups")) == before
        client.close()


@pytest.mark.long
def test_certificates(tmp_path: Path, namespace: Namespace, authority: Authority) -> None:
    """Both ends show one; without ours, or with another authority than theirs, nothing is read."""
    options = encrypted(authority)
    with etcd_cluster(tmp_path, size=1, options=options, scheme="https") as cluster:
        cluster.network.plug_in(namespace, "10.9.0.100")
        cluster.start()
        shown = authority.issue(name="agent")
        good = cluster.settings(
            ca_file=authority.file, client_certificate=shown.certificate, client_key=shown.key
        )
        other = Authority(tmp_path, "other")
        with namespace.entered():
            with pytest.raises(SourceUnavailableError, match="nothing is published"):
                EtcdSource(good, Limits()).fetch()
            for settings, told in (
                (replace(good, ca_file=other.file), "certificate is not trusted"),
                (replace(good, ca_file=None), "certificate is not trusted"),
                (replace(good, client_certificate=None, client_key=None), "certificate"),
            ):
                with pytest.raises(SourceUnavailableError, match=told):
                    EtcdSource(settings, Limits()).fetch()


def test_a_certificate_that_has_expired(tmp_path: Path, namespace: Namespace, authority: Authority) -> None:
    """The expired certificate is named as such."""
    options = encrypted(authority, days=-1)
    with etcd_cluster(tmp_path, size=1, options=options, scheme="https") as cluster:
        cluster.network.plug_in(namespace, "10.9.0.100")
        cluster.start()
        shown = authority.issue(name="agent")
        settings = cluster.settings(
            ca_file=authority.file, client_certificate=shown.certificate, client_key=shown.key
        )
        with namespace.entered(), pytest.raises(SourceUnavailableError, match="certificate has expired"):
            EtcdSource(settings, Limits()).fetch()
