"""Whatever ids and names are made of, they are only text on a page."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from sgagent.agent.web.explain_form import FormField, read_form
from sgagent.agent.web.page import PageContent, Section, render_page
from sgagent.agent.web.rules import RuleFilter
from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.errors import printable
from sgagent.core.model import ALL_PORTS, TCP, Direction, Policy
from sgagent.core.policy import Peer, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule
from tests.strategies import examples
from tests.unit.agent.flowlog.flows import dropped
from tests.unit.agent.web.reading import Reader
from tests.webpage import Part, barriers, read_page


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Return a reader of the pages of an agent that enforces an example."""
    reader = Reader(tmp_path_factory.mktemp("page"))
    reader.enforce_example("three-tier/web")
    return reader


HOSTILE = st.one_of(
    st.text(min_size=1, max_size=40),
    st.text(alphabet="<>&\"'/= -!`\\scriptonload", min_size=1, max_size=40),
    st.sampled_from(
        ("</td><script>", "'\"><img src=x onerror=x>", "<!--", "]]>", "&lt;", "javascript:x", "\u202e")
    ),
)
"""Texts, among them those that end what they stand in."""


def outline(page: Part) -> list[tuple[str, tuple[str, ...]]]:
    """Return the elements of a page with the names of their attributes, without any text."""
    return [(part.name, tuple(sorted(part.attributes))) for part in page.all()]


@given(HOSTILE, HOSTILE)
def test_templates_escape_texts_and_attributes(text: str, value: str) -> None:
    """A value adds no element and ends none, and is complete but for characters that are not printable."""
    form = (FormField(name="source", label=text, value=value),)
    page = read_page(
        render_page(
            PageContent(
                title=text,
                is_healthy=True,
                headline=value,
                sections=(Section("explain", text, "explain_form.html", form),),
                now=0.0,
            )
        ).content
    )
    for name in ("h1", "h2", "label"):
        assert page.one(name).own_text == printable(text)
    assert page.one("strong").own_text == printable(value)
    assert page.by_id("source").attributes["value"] == printable(value)


@examples(25)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_ids_do_not_change_a_page(rule_id: str, group: str, peer: str) -> None:
    """A page with hostile ids has the elements and attributes of one with harmless ids, and no barriers."""
    assert outline(page_with(rule_id, group, peer)) == outline(page_with("sgr-1", "sg-1", "pl-1"))


def page_with(rule_id: str, group: str, peer: str) -> Part:
    """Return the first page of an agent whose one rule, group and drop have these names."""
    rule = ResolvedRule(
        rule_id=rule_id,
        security_group_id=group,
        direction=Direction.INGRESS,
        authorization_objects=(),
        policy=Policy.DROP,
        priority=1,
        protocols=(TCP,),
        ports=ALL_PORTS,
        peer=Peer(name=peer, addresses=NO_ADDRESSES),
    )
    judge = ResolvedInterface(
        name="eth0",
        network_interface_id=peer,
        security_group_ids=(group,),
        ingress=ResolvedDirection(rules=(rule,)),
    )
    with tempfile.TemporaryDirectory() as directory:
        reader = Reader(Path(directory))
        reader.enforce(ResolvedPolicy(interfaces=(judge,)), version="v1")
        reader.flow_log.drops = (replace(dropped(1), rule_id=rule_id, security_group_id=group),)
        page = reader.open("/")
    assert barriers(page) == []
    assert printable(rule_id) in page.by_id("rules").text
    return page


@examples(50)
@given(st.dictionaries(st.sampled_from(("direction", "source", "port", "protocol", "x")), HOSTILE))
def test_whatever_is_sent_becomes_a_page(fields: dict[str, str]) -> None:
    """It is answered or refused, and what was written stands in the form as text."""
    with tempfile.TemporaryDirectory() as directory:
        reader = Reader(Path(directory))
        page = reader.open("/explain", fields)
    assert barriers(page) == []


@examples(50)
@given(
    st.sampled_from(("/", "/rules", "/rule", "/graph", "/graph.svg")),
    st.dictionaries(st.sampled_from((*RuleFilter.__slots__, "rule", "from", "x")), HOSTILE),
)
def test_whatever_a_link_says_is_answered(enforcing: Reader, path: str, fields: dict[str, str]) -> None:
    """By a page without barriers, or by the news that there is no such thing."""
    response = enforcing.get(path, fields)
    assert response.status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}
    if response.status is HTTPStatus.OK and path != "/graph.svg":
        assert barriers(read_page(response.content)) == []


@given(st.text(max_size=200))
def test_any_query_is_a_form(query: str) -> None:
    """No text is too strange to be read."""
    form = read_form(query)
    assert not (form.question and form.faults)
