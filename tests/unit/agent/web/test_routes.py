"""What the pages show, who gets them, and what their headers allow a browser."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from sgagent.agent.published_status import STEP_SECONDS
from sgagent.agent.web.inspection import MOST_EDGES
from sgagent.agent.web.page import CONTENT_SECURITY_POLICY
from sgagent.agent.web.sections import MOST_DROPS, ROWS_ON_OVERVIEW, ROWS_PER_PAGE
from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.model import ALL_PORTS, TCP, Direction, Mode, Policy
from sgagent.core.policy import Peer, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.documents import DocumentFile
from sgagent.nft.counter_keys import RuleCounter
from sgagent.ports import CounterValue
from tests.unit.agent.flowlog.flows import dropped
from tests.unit.agent.web.reading import Reader
from tests.webpage import Part, barriers

PACKET: dict[str, str | int] = {
    "direction": "ingress",
    "source": "198.51.100.7",
    "destination": "10.1.0.11",
    "protocol": "tcp",
    "port": 443,
}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Return a reader of the pages of an agent that enforces the three-tier example."""
    made = Reader(tmp_path)
    made.enforce_example("three-tier/web")
    return made


def many_rules(number: int) -> ResolvedPolicy:
    """Return a policy with this number of ingress rules."""
    rules = tuple(
        ResolvedRule(
            rule_id=f"sgr-{place}",
            security_group_id="sg-1",
            policy=Policy.ACCEPT,
            priority=1,
            protocol=TCP,
            ports=ALL_PORTS,
            source_ports=ALL_PORTS,
            peer=Peer(name="pl-1", addresses=NO_ADDRESSES),
        )
        for place in range(number)
    )
    judge = ResolvedInterface(
        name="eth0", security_group_ids=("sg-1",), ingress=ResolvedDirection(rules=rules)
    )
    return ResolvedPolicy(interfaces=(judge,))


def table_of(page: Part, caption: str) -> list[list[str]]:
    """Return the texts of a table's cells, row by row, without the headings."""
    (table,) = (table for table in page.all("table") if table.one("caption").text == caption)
    return [[cell.text for cell in row.all("th", "td")] for row in table.one("tbody").all("tr")]


def test_the_first_page_shows_everything(reader: Reader) -> None:
    """The sections are landmarks, and the navigation links to each."""
    page = reader.open("/")
    sections = [section.attributes["id"] for section in page.one("main").all("section")]
    assert sections == ["state", "interfaces", "rules", "findings", "graph", "drops", "explain"]
    links = [link.attributes["href"] for link in page.one("nav").all("a")]
    assert links == [f"#{name}" for name in sections]
    assert page.one("h1").text == "Security groups of web-1"
    assert "healthy enforcing since" in page.one("header").text
    assert page.by_id("state").text.count("v1, since") == 1


def test_pages_can_be_used_by_keyboard_and_by_ear(reader: Reader) -> None:
    """No page has barriers for keyboard or screen reader, with or without errors."""
    reader.flow_log.drops.add([dropped(1)])
    reader.totals = dict.fromkeys(_counters("sgr-web-ipv4"), CounterValue(packets=3, bytes=180))
    pages = (
        reader.open("/"),
        reader.open("/rules", {"interface": "eth0", "direction": "ingress"}),
        reader.open("/explain"),
        reader.open("/explain", PACKET),
        reader.open("/explain", {"source": "nowhere", "port": "x"}),
    )
    assert [barriers(page) for page in pages] == [[]] * len(pages)


def test_a_barrier_would_be_seen(reader: Reader) -> None:
    """The check of the test above finds barriers."""
    page = reader.open("/")
    page.by_id("source").attributes["id"] = "sauce"
    next(page.all("caption")).content = []
    assert len(barriers(page)) > 2


def test_groups_are_shown_with_what_is_said_of_them(reader: Reader) -> None:
    """A group has its name, type and number of rules in each direction."""
    rows = table_of(reader.open("/"), "Groups in force here")
    assert [row[0] for row in rows] == ["sg-base", "sg-web"]
    assert rows[1][1:] == ["web tier", "basic", "drop", "3", "2", "eth0"]


def test_rules_are_in_order_of_precedence(reader: Reader) -> None:
    """They have their hits; the default is last."""
    counter = RuleCounter(
        interface="eth0",
        security_group_id="sg-web",
        rule_id="sgr-web-ipv4",
        direction=Direction.INGRESS,
        policy=Policy.ACCEPT,
    )
    reader.totals = {counter: CounterValue(packets=0, bytes=0)}
    reader.open("/")
    reader.totals = {counter: CounterValue(packets=1234, bytes=74040)}
    reader.clock.pass_seconds(STEP_SECONDS)
    reader.open("/")
    rows = table_of(reader.open("/"), "Ingress, into eth0")
    policy = reader.board.policy().interfaces[0].ingress
    assert [row[0] for row in rows if row[0].startswith("sgr-")] == [rule.rule_id for rule in policy.rules]
    assert rows[-1][:3] == ["default", "", "drop"]
    (https,) = (row for row in rows if row[0] == "sgr-web-ipv4")
    assert https[7:9] == ["1,234", "74,040"]
    assert "1234 hits in 1 minute" in https[10]


def test_a_long_list_is_shown_in_parts(reader: Reader) -> None:
    """The overview shows the first rows and the default, and links to pages with all rows."""
    reader.enforce(many_rules(1_200))
    page = reader.open("/")
    rows = table_of(page, "Ingress, into eth0")
    assert len(rows) == ROWS_ON_OVERVIEW + 1
    assert rows[-1][0] == "default"
    assert "1100 rules more before the default, of 1201 lines" in page.by_id("rules").text
    seen: list[str] = []
    for first in (0, ROWS_PER_PAGE, 2 * ROWS_PER_PAGE):
        part = reader.open("/rules", {"interface": "eth0", "direction": "ingress", "from": first})
        seen += [row[0] for row in table_of(part, "Ingress, into eth0")]
    assert len(seen) == 1_201
    assert len(set(seen)) == 1_201
    last = reader.open("/rules", {"interface": "eth0", "direction": "ingress", "from": 1_100})
    turning = [link.attributes["href"] for link in last.by_id("rules").all("a")]
    assert turning == ["rules?interface=eth0&direction=ingress&from=500"]


@pytest.mark.parametrize("first", ("-1", "x", "9999999", "99999999999999999999999"))
def test_a_part_that_is_not_there_is_the_nearest(reader: Reader, first: str) -> None:
    """For any value of "from", rows are shown."""
    page = reader.open("/rules", {"interface": "eth0", "direction": "egress", "from": first})
    assert table_of(page, "Egress, out of eth0")


def test_an_unknown_interface_has_no_rules(reader: Reader) -> None:
    """A link to an interface that has gone is answered by 404."""
    assert reader.get("/rules", {"interface": "eth7", "direction": "ingress"}).status is HTTPStatus.NOT_FOUND
    assert reader.get("/rules").status is HTTPStatus.NOT_FOUND


def test_an_interface_that_is_only_observed_says_so(reader: Reader) -> None:
    """Its drops are marked as not carried out."""
    (judge,) = reader.board.policy().interfaces
    reader.enforce(ResolvedPolicy(interfaces=(replace(judge, mode=Mode.OBSERVE),)))
    page = reader.open("/")
    assert "eth0 is in observe mode: nothing is dropped" in page.by_id("rules").text
    assert table_of(page, "Ingress, into eth0")[-1][2] == "would drop"


def test_findings_are_those_of_lint(reader: Reader) -> None:
    """Each has its code, reason, remedy and place."""
    text = reader.open("/").by_id("findings").text
    assert "nothing_listens" in text
    assert "What to do: " in text
    assert "front.yaml:" in text


def test_who_may_talk_to_whom_is_drawn_and_said(reader: Reader) -> None:
    """The graph is an SVG with its own policy, and a list below has its edges in words."""
    section = reader.open("/").by_id("graph")
    drawing = reader.get(f"/{section.one('img').attributes['src']}")
    assert (drawing.status, drawing.content_type) == (HTTPStatus.OK, "image/svg+xml")
    assert "default-src 'none'" in dict(drawing.headers)["Content-Security-Policy"]
    assert b"sg-database" in drawing.content
    sentences = [item.text for item in section.one("details").all("li")]
    assert any("sg-web" in text and "sg-app" in text for text in sentences)


def test_what_is_too_much_to_draw_is_said_in_words(reader: Reader) -> None:
    """A graph with too many edges is listed only."""
    numbers = range(MOST_EDGES + 1)
    rules = "\n".join(
        f"      - {{rule_id: r{number}, direction: ingress, policy: accept, priority: 1, protocol: tcp, "
        f"port_range: 443, authorization_object: 10.{number // 250}.{number % 250}.0/24}}"
        for number in numbers
    )
    text = (
        "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    inner_access_policy: drop\n"
        f"    rules:\n{rules}\n"
        "network_interfaces:\n"
        "  - {network_interface_id: eni-1, addresses: [10.9.9.9], security_group_ids: [sg-1]}\n"
    )
    reader.enforce(many_rules(1), (DocumentFile("a.yaml", text.encode()),), version="v2")
    section = reader.open("/").by_id("graph")
    assert f"({MOST_EDGES + 1} edges)" in section.text
    assert list(section.all("img")) == []
    assert reader.get("/graph.svg").status is HTTPStatus.NOT_FOUND
    assert len(list(section.all("li"))) == MOST_EDGES + 1


def test_drops_are_shown_the_newest_first(reader: Reader) -> None:
    """Their number is limited, and both ends have their names, if known."""
    reader.flow_log.drops.add(dropped(number) for number in range(1, MOST_DROPS + 20))
    rows = table_of(reader.open("/"), "The newest first")
    assert len(rows) == MOST_DROPS
    assert rows[0][1:] == [
        "203.0.113.9 port 40000",
        "10.0.0.11 port 22 (eni-web-1, sg-web)",
        "tcp",
        "eth0 ingress",
        "drop",
        "default",
    ]


def test_the_form_is_answered(reader: Reader) -> None:
    """The answer has the verdict and what decides; the form keeps its values."""
    page = reader.open("/explain", PACKET)
    answer = page.by_id("answer").text
    assert "accept ingress tcp from 198.51.100.7 port 49152 to 10.1.0.11 port 443 on eth0" in answer
    assert "Decided by rule sgr-web-ipv4 of sg-web, priority" in answer
    assert "By the policy in force, snapshot v1." in answer
    assert page.by_id("source").attributes["value"] == "198.51.100.7"
    dropped_ = reader.open("/explain", PACKET | {"port": 5432}).by_id("answer").text
    assert "drop ingress tcp" in dropped_
    assert "Decided by default: no rule matches" in dropped_


def test_errors_are_shown_twice(reader: Reader) -> None:
    """In a list with links to the fields, and at each field."""
    page = reader.open("/explain", PACKET | {"source": "nowhere"})
    (link,) = page.by_id("answer").all("a")
    assert link.attributes["href"] == "#source"
    field = page.by_id("source")
    assert field.attributes["aria-invalid"] == "true"
    assert "source-fault" in field.attributes["aria-describedby"].split()
    assert page.by_id("source-fault").text == "write an IPv4 or IPv6 address, like 198.51.100.7"


def test_of_several_interfaces_one_is_chosen(reader: Reader) -> None:
    """The form lists them; without a choice, the answer says that one is missing."""
    (judge,) = reader.board.policy().interfaces
    reader.enforce(ResolvedPolicy(interfaces=(judge, replace(judge, name="eth1"))))
    page = reader.open("/explain", PACKET)
    assert [option.text for option in page.by_id("interface").all("option")] == ["eth0", "eth1"]
    assert "several interfaces are bound" in page.by_id("answer").text
    assert "on eth1" in reader.open("/explain", PACKET | {"interface": "eth1"}).by_id("answer").text


def test_before_anything_is_known_the_page_says_so(tmp_path: Path) -> None:
    """The page works before the first step."""
    page = Reader(tmp_path).open("/")
    assert "needs attention not enforcing" in page.one("header").text
    assert page.by_id("findings").one("p").text == "No definitions are in force."
    assert barriers(page) == []


def test_a_browser_may_load_nothing_from_elsewhere(reader: Reader) -> None:
    """No scripts, no inline styles, no foreign resources, no frames, no cache."""
    response = reader.get("/")
    headers = dict(response.headers)
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert {"default-src 'none'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(
        CONTENT_SECURITY_POLICY.split("; ")
    )
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    page = reader.open("/")
    assert list(page.all("script", "style", "iframe", "object", "base")) == []
    linked = [*page.all("link", "a", "img", "form")]
    targets = [part.attributes.get("href") or part.attributes.get("action") or "" for part in linked]
    assert [target for target in targets if ":" in target or target.startswith("/")] == []
    assert not any(
        name.startswith("on") or name == "style" for part in page.all() for name in part.attributes
    )


def test_what_pages_load_is_there(reader: Reader) -> None:
    """The style sheet and the icon are served."""
    for link in reader.open("/").all("link"):
        response = reader.get(f"/{link.attributes['href']}")
        assert response.status is HTTPStatus.OK
        assert response.content
        assert "url(" not in response.content.decode()


@pytest.mark.parametrize("path", ("/", "/rules", "/explain", "/graph.svg", "/page.css", "/icon.svg"))
def test_a_strangers_name_gets_nothing(reader: Reader, path: str) -> None:
    """DNS rebinding gets 421 instead of a page."""
    response = reader.get(path, host="evil.example:9469")
    assert response.status is HTTPStatus.MISDIRECTED_REQUEST
    assert reader.get(path, host="web-1:9469").status is not HTTPStatus.MISDIRECTED_REQUEST


def _counters(rule_id: str) -> list[RuleCounter]:
    return [
        RuleCounter(
            interface="eth0",
            security_group_id="sg-web",
            rule_id=rule_id,
            direction=Direction.INGRESS,
            policy=Policy.ACCEPT,
        )
    ]
