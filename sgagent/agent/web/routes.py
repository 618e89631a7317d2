"""The paths of the probes and of the status page, and the function that answers each."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TypeVar

from sgagent.agent.control import requests
from sgagent.agent.control.answers import Answering
from sgagent.agent.control.explain_requests import ExplainAnswer
from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.control.requests import ControlAnswer, Query, StatusAnswer
from sgagent.agent.control.status_text import headline
from sgagent.agent.posture import Posture
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.web.explain_form import Form, answer_sections, form_section, read_form
from sgagent.agent.web.inspection import Inspected, Inspection
from sgagent.agent.web.page import PRIVATE, Page, PageContent, Request, Response, Section, plain, render_page
from sgagent.agent.web.rules import (
    RuleFilter,
    RuleSources,
    find_rule,
    read_fields,
    rule_section,
    rules_section,
)
from sgagent.agent.web.sections import (
    GRAPH_PATH,
    Tile,
    drops_section,
    findings_summary,
    graph_response,
    graph_section,
    interfaces_section,
    make_tiles,
    state_section,
    warnings_section,
)
from sgagent.core.model import Policy
from sgagent.core.rule_values import decimal
from sgagent.ports import Clock
from sgagent.verify import Outcome


def _guarded(page: Page, own_names: frozenset[str]) -> Page:
    """Return a page that refuses requests for another host."""

    def answer(request: Request) -> Response:
        if is_own_host(request.host, own_names):
            return page(request)
        text = "expected an address, localhost or the name of this host in the URL\n"
        return plain(HTTPStatus.MISDIRECTED_REQUEST, text)

    return answer


def is_own_host(host: str | None, own_names: frozenset[str]) -> bool:
    """Return whether a ``Host`` header names this server, to prevent DNS rebinding.

    In DNS rebinding, another site's name resolves to 127.0.0.1, so that its scripts read this server's pages
    as their own. The browser still sends that name: an address, ``localhost`` or a name of this host proves
    that the user asked for this server.

    Args:
        host: the header; None is accepted, since every browser sends one.
        own_names: names of this host in lower case.
    """
    if host is None:
        return True
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return False
    name = (match["ipv6"] or match["name"]).lower().removesuffix(".")
    if name in own_names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")


def _static(name: str, content_type: str) -> Page:
    """Return a file of this package."""
    content = files(__package__).joinpath("static", name).read_bytes()
    headers = (("Cache-Control", "no-cache"), *(pair for pair in PRIVATE if pair[0] != "Cache-Control"))
    response = Response(status=HTTPStatus.OK, content_type=content_type, content=content, headers=headers)
    return lambda _: response


_Answer = TypeVar("_Answer", bound=ControlAnswer)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusPages:
    """The pages that show the present state, and the ports they learn it from."""

    published: PublishedStatus
    answer: Answering
    inspection: Inspection
    clock: Clock
    host_name: str
    """In the title, and accepted in the header ``Host``."""

    def by_path(self, listens_at: str) -> Mapping[str, Page]:
        """Return the pages by their paths.

        Args:
            listens_at: the address or name that the server listens on, accepted in the header ``Host``.
        """
        own_names = frozenset((self.host_name.lower(), listens_at.lower()))
        pages: Mapping[str, Page] = {
            "/": self.overview,
            "/rules": self.rules,
            "/explain": self.explain,
            "/rule": self.rule,
            "/graph": self.graph,
            GRAPH_PATH: self.graph_drawing,
            "/events": self.events,
            "/page.js": _static("page.js", "text/javascript; charset=utf-8"),
            "/page.css": _static("page.css", "text/css; charset=utf-8"),
            "/icon.svg": _static("icon.svg", "image/svg+xml"),
        }
        return {path: _guarded(page, own_names) for path, page in pages.items()}

    def overview(self, request: Request) -> Response:
        """Return the overview, of the rules those that a filter leaves."""
        status, inspected, now = self._status(), self.inspection.result(), self.clock.now()
        rule_filter = RuleFilter.read(read_fields(request.query))
        sections = (
            rules_section(self._rules(inspected), rule_filter, "./"),
            drops_section(self._ask(requests.DeniedQuery(), requests.DeniedAnswer)),
            warnings_section(status, inspected),
            interfaces_section(status.interfaces, inspected),
            graph_section(inspected),
            state_section(status, now),
            form_section(Form(), self._interfaces()),
        )
        findings, is_healthy = findings_summary(inspected), _is_healthy(status)
        tiles = make_tiles(status, self.published.samples.taken, findings, now, is_healthy=is_healthy)
        return self._page(f"Security groups of {self.host_name}", sections, "./", tuple(tiles))

    def rules(self, request: Request) -> Response:
        """Return the rules that a filter leaves, in pages where it leaves one interface and direction."""
        fields = read_fields(request.query)
        rule_filter = RuleFilter.read(fields)
        rules = self._rules(self.inspection.result())
        parts = rules.answer.interfaces
        if parts and not any(map(rule_filter.has_part, parts)):
            return plain(HTTPStatus.NOT_FOUND, "no rules for this interface and direction\n")
        section = rules_section(rules, rule_filter, "rules", _first(fields.get("from", "")))
        return self._page(f"Rules of {self.host_name}", [section], "rules")

    def rule(self, request: Request) -> Response:
        """Return the page of one rule, with its drops."""
        fields, inspected = read_fields(request.query), self.inspection.result()
        found = find_rule(self._ask(HitsQuery(), HitsAnswer), fields)
        if found is None:
            return plain(HTTPStatus.NOT_FOUND, "no such rule is in force on this host\n")
        part, hit = found
        sections = [rule_section(part, hit, self.published, inspected)]
        if hit.verdict is Policy.DROP:
            question = requests.DeniedQuery(
                interface=part.interface, direction=part.direction, rule_id=hit.rule_id
            )
            sections.append(drops_section(self._ask(question, requests.DeniedAnswer)))
        return self._page(f"Rule {hit.rule_id} of {hit.security_group_id}", sections)

    def graph(self, request: Request) -> Response:
        """Return the page with the graph, in which the edges of one group stand out."""
        group = read_fields(request.query).get("group", "")
        section = graph_section(self.inspection.result(), group, is_own_page=True)
        return self._page(f"Security groups of {self.host_name}", [section], "graph")

    def graph_drawing(self, request: Request) -> Response:
        """Return the drawing alone."""
        group = read_fields(request.query).get("group", "")
        return graph_response(self.inspection.result(), group)

    def explain(self, request: Request) -> Response:
        """Return the form, with its answer or its errors."""
        form = read_form(request.query)
        answers = answer_sections(form, lambda question: self._ask(question, ExplainAnswer))
        sections = (*answers, form_section(form, self._interfaces()))
        return self._page("Explain a packet", sections, "explain")

    def events(self, _request: Request) -> Response:
        """Return a stream that repeats the revision of the pages' content."""

        def event() -> bytes:
            return f"data: {self.published.revision}\n\n".encode()

        return Response(
            status=HTTPStatus.OK,
            content_type="text/event-stream",
            content=b"retry: 5000\n\n",
            headers=PRIVATE,
            make_event=event,
        )

    def _page(
        self, title: str, sections: Sequence[Section], path: str = "", tiles: Sequence[Tile] = ()
    ) -> Response:
        status, now = self._status(), self.clock.now()
        content = PageContent(
            title=title,
            is_healthy=_is_healthy(status),
            headline=headline(status, now),
            reasons=(*status.not_ready_because, *status.faults),
            alert=[line.strip() for line in status.verified_in_words] if _is_refuted(status) else (),
            path=path,
            tiles=tiles,
            sections=sections,
            now=now,
        )
        return render_page(content)

    def _rules(self, inspected: Inspected) -> RuleSources:
        answer = self._ask(HitsQuery(), HitsAnswer)
        return RuleSources(answer=answer, trend=self.published.trend, inspected=inspected)

    def _interfaces(self) -> list[str]:
        return [interface.name for interface in self.published.policy.bound]

    def _status(self) -> StatusAnswer:
        return self._ask(requests.StatusQuery(), StatusAnswer)

    def _ask(self, question: Query, kind: type[_Answer]) -> _Answer:
        answer = self.answer(question)
        assert isinstance(answer, kind)  # noqa: S101 - each question has one kind of answer; for the type checker
        return answer


def _is_healthy(status: StatusAnswer) -> bool:
    is_judging = status.posture in (Posture.ENFORCING, Posture.OBSERVING)
    return status.is_ready and is_judging and not _is_refuted(status)


def _is_refuted(status: StatusAnswer) -> bool:
    """Return whether the newest proof found a packet on which the table and the policy disagree."""
    return status.verified_outcome == Outcome.REFUTED.value


def _first(text: str) -> int:
    """Return the index of the first row that a link names; 0 for no index."""
    return decimal(text, 9_999_999) or 0
