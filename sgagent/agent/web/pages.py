"""Make the pages that the agent serves beside its metrics, each anew at each request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TypeVar
from urllib.parse import parse_qsl

from sgagent.agent.control.answers import Answering
from sgagent.agent.control.queries import (
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
from sgagent.agent.published_status import Board
from sgagent.agent.web.drawing import DRAWING_PATH, drawing_response, graph_section
from sgagent.agent.web.drops import drops_section
from sgagent.agent.web.explain_form import MOST_FIELDS, Form, read_form
from sgagent.agent.web.explanation import answer_section, faults_section, form_section, refusal_section
from sgagent.agent.web.findings import findings_section
from sgagent.agent.web.hosts import is_meant
from sgagent.agent.web.inspection import Inspection
from sgagent.agent.web.interfaces import interfaces_section
from sgagent.agent.web.messages import Page, Request, Response, plain
from sgagent.agent.web.rules import ROWS_OF_A_PAGE, Figures, part_section, rules_section, title
from sgagent.agent.web.shell import ICON_PATH, PRIVATE, STYLE_PATH, Place, Section, page
from sgagent.agent.web.state import lead, state_section
from sgagent.core.errors import UsageError
from sgagent.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """What pages are made of."""

    board: Board
    answer: Answering
    inspection: Inspection
    clock: Clock
    host_name: str
    """Of this host; in the title, and what a browser may call it by."""


def status_pages(sources: PageSources, listens_at: str) -> Mapping[str, Page]:
    """Return the pages by their paths.

    Args:
        sources: what they are made of.
        listens_at: the address or the name at which they are served.
    """
    pages = _Pages(sources)
    own_names = frozenset((sources.host_name.lower(), listens_at.lower()))
    made: Mapping[str, Page] = {
        "/": pages.overview,
        "/rules": pages.rules,
        "/explain": pages.explain,
        DRAWING_PATH: lambda _: drawing_response(sources.inspection.result()),
        STYLE_PATH: _kept("page.css", "text/css; charset=utf-8"),
        ICON_PATH: _kept("icon.svg", "image/svg+xml"),
    }
    return {path: _guarded(one, own_names) for path, one in made.items()}


def _guarded(made: Page, own_names: frozenset[str]) -> Page:
    """Return a page that only those get who mean this server."""

    def answer(request: Request) -> Response:
        if is_meant(request.host, own_names):
            return made(request)
        told = "This page is asked for by an address, as localhost, or by the name of this host.\n"
        return plain(HTTPStatus.MISDIRECTED_REQUEST, told)

    return answer


def _kept(name: str, content_type: str) -> Page:
    """Return a page that is always the same file of this package."""
    content = files(__package__).joinpath("static", name).read_bytes()
    headers = (("Cache-Control", "no-cache"), *(pair for pair in PRIVATE if pair[0] != "Cache-Control"))
    response = Response(status=HTTPStatus.OK, content_type=content_type, content=content, headers=headers)
    return lambda _: response


_Answer = TypeVar("_Answer", bound=Answer)

_BACK = Place(target="./", words="Overview")


class _Pages:
    """The pages that change."""

    def __init__(self, sources: PageSources) -> None:
        self._sources = sources

    def overview(self, _request: Request) -> Response:
        """Return the page that shows everything in short."""
        return self._page(f"Security groups of {self._sources.host_name}", self._sections())

    def rules(self, request: Request) -> Response:
        """Return the page with all rules of one interface and direction, a part at a time."""
        wanted = _fields(request.query)
        for part in self._ask(HitsQuestion(), HitsAnswer).interfaces:
            if (part.interface, part.direction.value) == (wanted.get("interface"), wanted.get("direction")):
                first = _first(wanted.get("from", ""), len(part.hits))
                return self._page(title(part), [part_section(part, first, self._figures())], (_BACK,))
        return plain(HTTPStatus.NOT_FOUND, "nothing is judged there\n")

    def explain(self, request: Request) -> Response:
        """Return the page that answers the form."""
        form = read_form(request.query)
        sections = (*self._answers(form), form_section(form, self._interfaces()))
        return self._page("Explain a packet", sections, (_BACK,))

    def _page(self, title_: str, sections: Iterable[Section], places: tuple[Place, ...] = ()) -> Response:
        status, now = self._ask(StatusQuestion(), StatusAnswer), self._sources.clock.now()
        return page(title_, places, lead(status, now), tuple(sections))

    def _sections(self) -> Iterator[Section]:
        sources, now = self._sources, self._sources.clock.now()
        status = self._ask(StatusQuestion(), StatusAnswer)
        inspected = sources.inspection.result()
        yield state_section(status, now)
        yield interfaces_section(status.interfaces, inspected)
        yield rules_section(self._ask(HitsQuestion(), HitsAnswer), self._figures())
        yield findings_section(inspected)
        yield graph_section(inspected)
        yield drops_section(self._ask(DeniedQuestion(), DeniedAnswer), now)
        yield form_section(Form(), self._interfaces())

    def _answers(self, form: Form) -> Iterator[Section]:
        """Yield what there is to say to a form, if anything was asked."""
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

    def _figures(self) -> Figures:
        return Figures(self._sources.board.trend(), self._sources.clock.now())

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
    """Return the number of the first row of a page, whatever was asked for."""
    first = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    return min(first, max(0, rows - 1)) // ROWS_OF_A_PAGE * ROWS_OF_A_PAGE
