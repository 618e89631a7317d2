"""What ``sgagent fleet`` prints of hosts that anybody may name, and how long it waits for the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.cli import fleet
from sgagent.cli.main import main
from sgagent.sources.etcd.key_layout import FLEET
from tests.etcdstore import LAYOUT, Store
from tests.grpcserver import Server, listening


@pytest.mark.parametrize("arguments", (("status",), ("wait", "--timeout", "0s")))
@pytest.mark.parametrize("options", ((), ("--json",)))
def test_no_name_of_a_host_reaches_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Control characters in it are escaped, by either action and in JSON."""
    store, configuration = Store(), tmp_path / "sgagent.toml"
    store.values[LAYOUT.key(FLEET, "web\x1b[2J\n")] = b"no report"
    with listening(store.behave) as port:
        configuration.write_text(f'[source]\ntype = "etcd"\nendpoints = ["http://127.0.0.1:{port}"]\n')
        main(["--config", str(configuration), "fleet", *arguments, *options])
    printed = "".join(capsys.readouterr())
    assert "web" in printed
    assert "\x1b" not in printed
    assert "[2J\n" not in printed


def test_a_silent_store_has_no_more_time_than_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The timeout of the command counts, and not that of a request."""
    configuration = tmp_path / "sgagent.toml"

    def say_nothing(server: Server) -> None:
        while server.hear():
            pass

    with listening(say_nothing) as port:
        configuration.write_text(f'[source]\ntype = "etcd"\nendpoints = ["http://127.0.0.1:{port}"]\n')
        assert main(["--config", str(configuration), "fleet", "wait", "--timeout", "1s"]) == 4
    assert "no answer within 1 seconds" in capsys.readouterr().err


def test_a_store_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience of other commands with the store does not end the wait."""
    store, configuration, connections = Store(), tmp_path / "sgagent.toml", iter(range(99))
    monkeypatch.setattr(fleet, "PATIENCE_SECONDS", 0.0)

    def be_away_twice(server: Server) -> None:
        if next(connections) < 2:
            raise ConnectionResetError
        store.behave(server)

    with listening(be_away_twice) as port:
        configuration.write_text(f'[source]\ntype = "etcd"\nendpoints = ["http://127.0.0.1:{port}"]\n')
        arguments = ["--config", str(configuration), "fleet", "wait", "--timeout", "1s"]
        assert main(arguments) == 1
    assert next(connections) > 2
