"""Ask a running daemon as other programs do, which takes no time to start."""

from __future__ import annotations

import json
import socket
from typing import Any

from integration.service import Service


def query(agent: Service, **question: Any) -> dict[str, Any]:  # noqa: ANN401 - what the protocol has room for
    """Ask, once the agent has done its pending work, and return the whole line of the answer."""
    agent.scrape()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(agent.directory / "run" / "control.sock"))
        _send(connection, question)
        return dict(json.loads(connection.makefile().readline()))


def send_command(agent: Service, **order: Any) -> socket.socket:  # noqa: ANN401 - likewise
    """Give an order, wait for nothing, and return the connection, which the caller closes."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(agent.directory / "run" / "control.sock"))
    _send(connection, order)
    return connection


def status(agent: Service) -> dict[str, Any]:
    """Return the agent's status."""
    return dict(query(agent, question="status")["answer"])


def _send(connection: socket.socket, line: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"version": 1, **line}).encode() + b"\n")
