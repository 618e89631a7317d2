"""Read the pages of an agent whose status is published as its loop does."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlencode

from sgagent.agent.control.answers import answering
from sgagent.agent.flowlog.flowlog import FlowLog
from sgagent.agent.inbox import Inbox
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.sessions import LiveSessions
from sgagent.agent.step import Step, StepEnd
from sgagent.agent.web.inspection import Inspection
from sgagent.agent.web.page import Request, Response
from sgagent.agent.web.routes import StatusPages
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.core.binding import HostFacts, Link
from sgagent.core.counter_keys import CounterKey, HitTimes
from sgagent.core.model import CidrBlock, Policy
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.nft.marks import MarkLayout
from sgagent.ports import CounterValue
from sgagent.settings import Settings
from tests.corpus import Example, examples
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import Machine
from tests.webpage import Part, read_page

Fields = Mapping[str, str | int]
NO_FIELDS: Fields = MappingProxyType({})

ADDRESS = CidrBlock.parse("10.1.0.11")
"""Of each link."""

PATIENCE_SECONDS = 30.0
"""For findings: a test waits until they are there."""


class Reader:
    """Somebody with a browser before an agent in memory."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        """Start with nothing known."""
        self.clock = FakeClock()
        self.totals: dict[CounterKey, CounterValue] = {}
        self.times: dict[CounterKey, HitTimes] = {}
        told = FlowLogging(verdicts=frozenset((Policy.DROP,)))
        self.flow_log = FlowLog(self.clock, FakeLog(), logging=told)
        self.published = PublishedStatus(self.clock, self._read_counters, self.flow_log)
        self.ask = answering(
            self.published,
            self.clock,
            "file groups.d",
            LiveSessions(MarkLayout(0xFFFF0000), lambda _: [None]),
            Machine(directory).dispatcher(Inbox(), FakeLog()),
            look=Diagnosis,
        )
        self.inspection = Inspection(
            self.published, settings or Settings(), self.clock, lambda: (), PATIENCE_SECONDS
        )
        pages = StatusPages(
            published=self.published,
            answer=self.ask,
            inspection=self.inspection,
            clock=self.clock,
            host_name="web-1",
        )
        self.pages = pages.by_path("127.0.0.1")

    def _read_counters(self, _seconds: float) -> bool:
        self.published.note_totals(dict(self.totals), times=dict(self.times))
        return True

    def enforce(
        self, policy: ResolvedPolicy, files: tuple[DocumentFile, ...] = (), version: str = "v1"
    ) -> None:
        """Have a step put a policy in force on links of its names."""
        links = tuple(
            Link(name=judge.name, index=number, addresses=(ADDRESS,))
            for number, judge in enumerate(policy.interfaces, start=1)
        )
        step = Step(
            outcome=StepEnd.APPLIED,
            version=version,
            policy=policy,
            documents=files,
            facts=HostFacts(links=links),
        )
        self.published.note_step(step, is_fetched=True)

    def enforce_example(self, name: str) -> Example:
        """Have an example in force, and return it."""
        (example,) = (one for one in examples() if one.name == name)
        files = tuple(
            DocumentFile(path.name, path.read_bytes()) for path in sorted(example.definitions.iterdir())
        )
        self.enforce(example.policy(), files)
        return example

    def get(self, path: str, fields: Fields = NO_FIELDS, host: str | None = None) -> Response:
        """Return the answer to a request."""
        return self.pages[path](Request(query=urlencode(fields), host=host))

    def open(self, path: str, fields: Fields = NO_FIELDS) -> Part:
        """Return a page that is there."""
        response = self.get(path, fields)
        assert response.status is HTTPStatus.OK
        return read_page(response.content)
