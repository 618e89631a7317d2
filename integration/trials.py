"""Kill an agent anywhere in a trial, and see that the trial ends as it should all the same."""

from __future__ import annotations

from time import perf_counter

from integration.agent_under_traffic import AgentUnderTraffic
from integration.control_client import query, send_command, status
from integration.lab import LabError

_SECONDS = 1.0
"""How long a trial has, if nobody confirms it."""


def kill_in_a_trial(agent: AgentUnderTraffic) -> float:
    """Kill the agent anywhere in a trial; the next goes back in time, or keeps the confirmed policy."""
    before = agent.change_policy()
    agent.wait_for_policy(before)
    trial = agent.next_mark()
    documents = [{"name": "trial.yaml", "content": agent.policy(trial)}]
    is_to_be_confirmed = agent.dice.random() < 0.5
    seconds = 600.0 if is_to_be_confirmed else _SECONDS
    with send_command(agent.service, question="apply", documents=documents, confirm_within=seconds):
        agent.a_moment(_SECONDS if agent.dice.random() < 0.5 else _AN_ORDER_SECONDS)
        began = perf_counter()
        agent.service.kill()
    agent.service.start()
    took = perf_counter() - began
    if status(agent.service)["pending"] is not None and is_to_be_confirmed:
        _confirm(agent)
        before = trial
    agent.wait_for_policy(before)
    return took


_AN_ORDER_SECONDS = 0.1
"""From an order to the answer, about."""


def _confirm(agent: AgentUnderTraffic) -> None:
    answer = query(agent.service, question="confirm").get("answer")
    if answer is None or not answer["is_confirmed"]:
        raise LabError(f"a trial that is pending can't be confirmed: {answer}")
