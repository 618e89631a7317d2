"""Fixtures of the bench's agent with definitions of a test module's own: ``agent = agent_with(TEXT)``."""

from __future__ import annotations

from typing import Any

import pytest

from integration.service import Service


def agent_with(
    document: str, configuration: str = "", *, is_started: bool = True, verifies: bool = False
) -> Any:  # noqa: ANN401 - what pytest makes of a function
    """Return a fixture that gives the agent definitions.

    Args:
        document: the definitions.
        configuration: what to add to the agent's paths; tables of TOML.
        is_started: whether it runs when the test begins.
        verifies: whether it proves each table.
    """

    def agent(agent: Service) -> Service:
        agent.verifies = verifies
        agent.configure(configuration)
        agent.define(document)
        if is_started:
            agent.start()
        return agent

    return pytest.fixture(agent)
