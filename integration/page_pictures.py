"""Take the pictures of docs/page.md: ``python -m integration.page_pictures [FOLDER]``.

The page is the agent's own, over its HTTP server, in a real browser. The agent is one in memory that enforces
an example and has lived for an hour in a second: the pictures show the same figures each time.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from integration.browser import browser_on, why_not
from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.published_status import SAMPLE_SECONDS
from sgagent.agent.web.http_server import MetricsServer, listen
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import CounterKey, HitStep, HitTimes, is_of_drops
from sgagent.core.model import Direction
from sgagent.ports import CounterValue
from tests.unit.agent.flowlog.flows import dropped
from tests.unit.agent.web.reading import Reader

_FOLDER = Path(__file__).parent.parent / "docs"
_EXAMPLE = "three-tier/web"
_BEGUN_AT = 1_795_807_200.0
_LIVED = 52 * 60
"""Seconds of traffic."""

_DESK, _PHONE = (1280, 800), (390, 844)


def main() -> int:
    """Take all pictures; return 5 without a browser."""
    if reason := why_not():
        print(f"no picture can be taken: {reason}", file=sys.stderr)
        return 5
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER
    with (
        tempfile.TemporaryDirectory() as directory,
        page_served(Path(directory)) as url,
        browser_on() as browser,
    ):
        for name, path, size, scheme in _pictures():
            browser.prefer(prefers_color_scheme=scheme)
            browser.resize(*size)
            browser.open(f"{url}{path}")
            browser.wait_for("document.getElementById('live').textContent === 'Live'")
            (folder / f"page-{name}.png").write_bytes(browser.picture(whole=False))
            print(f"page-{name}.png")
    return 0


def _pictures() -> Iterator[tuple[str, str, tuple[int, int], str]]:
    """Yield the name, path, size and colours of each picture."""
    rule = "rule?interface=eth0&direction=egress&group=sg-web&rule=sgr-web-no-database"
    yield "light", "", _DESK, "light"
    yield "phone", "", _PHONE, "light"
    yield "phone-rules", "?hit=yes#rules", _PHONE, "dark"
    yield "rule", rule, _DESK, "light"
    yield "graph", "graph?group=sg-app", _DESK, "dark"


@contextmanager
def page_served(directory: Path) -> Iterator[str]:
    """Serve the page of an agent with traffic, and give its address."""
    reader = Reader(directory)
    reader.clock.pass_seconds(_BEGUN_AT - reader.clock.now())
    reader.enforce_example(_EXAMPLE)
    _live(reader, random.Random(4))
    server = MetricsServer(listen("127.0.0.1", 0), CollectorRegistry(), reader.pages)
    with closing(server):
        yield f"http://127.0.0.1:{server.port}/"


def _live(reader: Reader, draw: random.Random) -> None:
    """Let time pass with sessions and drops."""
    keys = list(_keys(reader))
    weights = {
        key: draw.choice((0.01, 0.03)) if is_of_drops(key) else draw.choice((0.05, 0.1, 0.4)) for key in keys
    }
    reader.totals = dict.fromkeys(keys, CounterValue(packets=0, bytes=0))
    reader.open("/")
    for second in range(0, _LIVED, round(SAMPLE_SECONDS)):
        reader.clock.pass_seconds(SAMPLE_SECONDS)
        burst = 5 if 1500 < second < 1740 else 1
        for key in keys:
            grown = sum(draw.random() < weights[key] for _ in range(10 * (burst if is_of_drops(key) else 1)))
            last = reader.totals[key]
            if grown:
                reader.totals[key] = CounterValue(packets=last.packets + grown, bytes=last.bytes + 60 * grown)
                hit_at = reader.clock.now() - draw.randrange(9)
                reader.times[key] = HitTimes(counted_since=_BEGUN_AT, last_hit_at=hit_at)
        reader.published.note_totals(dict(reader.totals), times=dict(reader.times))
    reader.flow_log.drops = tuple(_drops(reader.clock.now(), draw))


def _keys(reader: Reader) -> Iterator[CounterKey]:
    answer = reader.ask(HitsQuery())
    assert isinstance(answer, HitsAnswer)
    for part in answer.interfaces:
        yield from (counter_of(part, hit) for hit in part.hits if hit.step in (HitStep.RULE, HitStep.DEFAULT))


def _drops(now: float, draw: random.Random) -> Iterator[Flow]:
    for number in range(1, 21):
        flow = replace(dropped(number, draw.choice((22, 23, 3389))), seen_at=now - 7.0 * (21 - number))
        if number % 3 == 0:
            flow = replace(
                flow,
                direction=Direction.EGRESS,
                decided_by=DecidedBy.RULE,
                rule_id="sgr-web-no-database",
                security_group_id="sg-web",
                source=replace(flow.destination, address="10.1.0.11", port=40_000 + number),
                destination=replace(
                    flow.destination,
                    address="10.1.0.31",
                    port=5432,
                    network_interface_id="eni-database-1",
                    security_group_ids=("sg-database",),
                ),
            )
        yield flow


if __name__ == "__main__":
    sys.exit(main())
