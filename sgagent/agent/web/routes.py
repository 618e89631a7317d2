"""The paths of the status page, and what answers each request for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TypeVar
from urllib.parse import parse_qsl

from sgagent.agent.control.answers import Answering
from sgagent.agent.control.requests import (
    Answer,
    DeniedAnswer,
    DeniedQuestion,
    ExplainAnswer,
    HitsAnswer,
    HitsQuestion,
    Question,
    StatusAnswer,
    StatusQuestion,
)
from sgagent.agent.control.status_text import headline
from sgagent.agent.published_status import Board
from sgagent.agent.status import Posture
from sgagent.agent.web.explain_form import (
    MOST_FIELDS,
    Form,
    answer_section,
    faults_section,
    form_section,
    read_form,
    refusal_section,
)
from sgagent.agent.web.inspection import Inspection
from sgagent.agent.web.page import PageContent, PageLink, Section, render_page
from sgagent.agent.web.responses import PRIVATE, Page, Request, Response, is_own_host, plain
from sgagent.agent.web.sections import (
    GRAPH_PATH,
    ROWS_PER_PAGE,
    caption,
    drops_section,
    findings_section,
    graph_response,
    graph_section,
    interfaces_section,
    rule_part_section,
    rules_section,
    state_section,
)
from sgagent.core.errors import UsageError
from sgagent.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """What the pages show, and how they learn it."""

    board: Board
    answer: Answering
    inspection: Inspection
    clock: Clock
    host_name: str
    """In the title, and accepted in the header ``Host``."""


def status_pages(sources: PageSources, listens_at: str) -> Mapping[str, Page]:
    """Return the pages by their paths.

    Args:
        sources: what they show.
        listens_at: the address or name that the server listens on, accepted in the header ``Host``.
    """
    pages = _Pages(sources)
    own_names = frozenset((sources.host_name.lower(), listens_at.lower()))
    by_path: Mapping[str, Page] = {
        "/": pages.overview,
        "/rules": pages.rules,
        "/explain": pages.explain,
        GRAPH_PATH: lambda _: graph_response(sources.inspection.result()),
        "/page.css": _static("page.css", "text/css; charset=utf-8"),
        "/icon.svg": _static("icon.svg", "image/svg+xml"),
    }
    return {path: _guarded(one, own_names) for path, one in by_path.items()}


def _guarded(page: Page, own_names: frozenset[str]) -> Page:
    """Return a page that refuses requests for another host."""

    def answer(request: Request) -> Response:
        if is_own_host(request.host, own_names):
            return page(request)
        text = "expected an address, localhost or the name of this host in the URL\n"
        return plain(HTTPStatus.MISDIRECTED_REQUEST, text)

    return answer


def _static(name: str, content_type: str) -> Page:
    """Return a file of this package."""
    content = files(__package__).joinpath("static", name).read_bytes()
    headers = (("Cache-Control", "no-cache"), *(pair for pair in PRIVATE if pair[0] != "Cache-Control"))
    response = Response(status=HTTPStatus.OK, content_type=content_type, content=content, headers=headers)
    return lambda _: response


_Answer = TypeVar("_Answer", bound=Answer)

_OVERVIEW = PageLink("./", "Overview")


class _Pages:
    """The pages that show the present state."""

    def __init__(self, sources: PageSources) -> None:
        self._sources = sources

    def overview(self, _request: Request) -> Response:
        """Return the overview."""
        return self._page(f"Security groups of {self._sources.host_name}", self._sections())

    def rules(self, request: Request) -> Response:
        """Return one page of the rules of one interface and direction."""
        wanted = _fields(request.query)
        for part in self._ask(HitsQuestion(), HitsAnswer).interfaces:
            if (part.interface, part.direction.value) == (wanted.get("interface"), wanted.get("direction")):
                first = _first(wanted.get("from", ""), len(part.hits))
                section = rule_part_section(part, first, self._sources.board.trend())
                return self._page(caption(part), [section], (_OVERVIEW,))
        return plain(HTTPStatus.NOT_FOUND, "no rules for this interface and direction\n")

    def explain(self, request: Request) -> Response:
        """Return the form, with its answer or its errors."""
        form = read_form(request.query)
        sections = (*self._answers(form), form_section(form, self._interfaces()))
        return self._page("Explain a packet", sections, (_OVERVIEW,))

    def _page(self, title: str, sections: Iterable[Section], links: tuple[PageLink, ...] = ()) -> Response:
        status, now = self._ask(StatusQuestion(), StatusAnswer), self._sources.clock.now()
        content = PageContent(
            title=title,
            is_healthy=status.is_ready and status.posture in (Posture.ENFORCING, Posture.OBSERVING),
            headline=headline(status, now),
            links=links,
            sections=tuple(sections),
            now=now,
        )
        return render_page(content)

    def _sections(self) -> Iterator[Section]:
        sources, now = self._sources, self._sources.clock.now()
        status = self._ask(StatusQuestion(), StatusAnswer)
        inspected = sources.inspection.result()
        yield state_section(status, now)
        yield interfaces_section(status.interfaces, inspected)
        yield rules_section(self._ask(HitsQuestion(), HitsAnswer), sources.board.trend())
        yield findings_section(inspected)
        yield graph_section(inspected)
        yield drops_section(self._ask(DeniedQuestion(), DeniedAnswer))
        yield form_section(Form(), self._interfaces())

    def _answers(self, form: Form) -> Iterator[Section]:
        """Yield the errors or the answer; nothing for an empty form."""
        if form.faults:
            yield faults_section(form)
        if form.question is None:
            return
        try:
            answer = self._ask(form.question, ExplainAnswer)
            packet = form.question.packet(answer.explanation.interface or "")
        except UsageError as error:
            yield refusal_section(f"{error}.")
        else:
            yield answer_section(answer, packet)

    def _interfaces(self) -> list[str]:
        return [interface.name for interface in self._sources.board.policy().interfaces]

    def _ask(self, question: Question, kind: type[_Answer]) -> _Answer:
        answer = self._sources.answer(question)
        assert isinstance(answer, kind)  # noqa: S101 - each question has one kind of answer; for the type checker
        return answer


def _fields(query: str) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(query, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}


def _first(text: str, rows: int) -> int:
    """Return the index of the first row of the page that holds a row; the nearest page for any text."""
    first = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    return min(first, max(0, rows - 1)) // ROWS_PER_PAGE * ROWS_PER_PAGE
