"""Say what is in force now, because of an order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from sgagent.agent.asking.orders import EnforcedAnswer
from sgagent.agent.asking.wire import encode_fields
from sgagent.agent.telling.moments import count, time_left
from sgagent.core.errors import printable


def print_enforced(answer: EnforcedAnswer, *, as_json: bool) -> None:
    """Print the outcome first, then what it costs; what is wrong goes to standard error."""
    if as_json:
        print(json.dumps(encode_fields(answer)))
        return
    print("\n".join(map(printable, lines(answer))))
    for problem in answer.warnings:
        print(problem, file=sys.stderr)
    if answer.fault is not None:
        print(printable(f"warning: this will not outlive the agent: {answer.fault}"), file=sys.stderr)


def lines(answer: EnforcedAnswer) -> Iterator[str]:
    """Yield what a person has to know."""
    if answer.version is None:
        yield "nothing is enforced, as before"
    else:
        names = ", ".join(answer.interfaces) or "no interface"
        unchanged = "" if answer.is_changed else " (the kernel held it already)"
        yield f"enforcing {answer.version} on {names}{unchanged}"
    if answer.seconds_left is not None:
        back = answer.goes_back_to or "nothing, as before"
        yield f"goes back to {back} in {time_left(answer.seconds_left)}, unless 'sgagent confirm' comes"
    elif answer.held_back is not None:
        yield f"held until the source delivers another version than {answer.held_back}"
    if answer.sessions_cut:
        yield f"cut {count(len(answer.sessions_cut), 'open session')}:"
        yield from (f"  {cut}" for cut in answer.sessions_cut)
