"""What ``sgagent fleet`` prints of hosts that anybody with a key in the store may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.cli.main import main
from sgagent.sources.etcd.key_layout import FLEET
from tests.etcdstore import LAYOUT, Store
from tests.grpcserver import listening


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
