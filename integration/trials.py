"""Kill an agent anywhere in a trial, and see that the trial ends as it should all the same."""

from __future__ import annotations

from time import perf_counter

from integration.asking import asked, ordered, status
from integration.lab import LabError
from integration.ordeal import Ordeal

_SECONDS = 1.0
"""How long a trial has, if nobody confirms it."""


def kill_in_a_trial(ordeal: Ordeal) -> float:
    """Kill the agent anywhere in a trial; the next goes back in time, or keeps the confirmed policy."""
    before = ordeal.change_policy()
    ordeal.wait_for_policy(before)
    trial = ordeal.next_mark()
    documents = [{"name": "trial.yaml", "content": ordeal.policy(trial)}]
    is_to_be_confirmed = ordeal.dice.random() < 0.5
    seconds = 600.0 if is_to_be_confirmed else _SECONDS
    with ordered(ordeal.service, question="apply", documents=documents, confirm_within=seconds):
        ordeal.a_moment(_SECONDS if ordeal.dice.random() < 0.5 else _AN_ORDER_SECONDS)
        began = perf_counter()
        ordeal.service.kill()
    ordeal.service.start()
    took = perf_counter() - began
    if status(ordeal.service)["pending"] is not None and is_to_be_confirmed:
        _confirm(ordeal)
        before = trial
    ordeal.wait_for_policy(before)
    return took


_AN_ORDER_SECONDS = 0.1
"""From an order to the answer, about."""


def _confirm(ordeal: Ordeal) -> None:
    answer = asked(ordeal.service, question="confirm").get("answer")
    if answer is None or not answer["is_confirmed"]:
        raise LabError(f"a trial that is pending can't be confirmed: {answer}")
