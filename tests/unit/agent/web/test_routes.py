"""What the pages show, who gets them, and what their headers allow a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.published_status import SAMPLE_SECONDS, STEP_SECONDS
from sgagent.agent.status import Durations, ProofReport
from sgagent.agent.web.inspection import MOST_EDGES
from sgagent.agent.web.page import CONTENT_SECURITY_POLICY, STATUS_PATHS, Page, Request, made_when_asked
from sgagent.agent.web.rules import ROWS_ON_OVERVIEW, ROWS_PER_PAGE
from sgagent.agent.web.sections import MOST_DROPS
from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import DefaultCounter, RuleCounter
from sgagent.core.model import ALL_PORTS, TCP, Direction, Mode, Policy
from sgagent.core.policy import Peer, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.documents import DocumentFile
from sgagent.ports import CounterValue
from sgagent.verify import Outcome
from tests.unit.agent.flowlog.flows import dropped
from tests.unit.agent.web.reading import Reader
from tests.webpage import Part, barriers
from tests.words import rule_counter

PACKET: dict[str, str | int] = {
    "direction": "ingress",
    "source": "198.51.100.7",
    "destination": "10.1.0.11",
    "protocol": "tcp",
    "port": 443,
}


ABUSE: dict[str, str | int] = {
    "interface": "eth0",
    "direction": "ingress",
    "group": "sg-web",
    "rule": "sgr-web-abuse",
}
"""A rule that drops."""


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Return a reader of the pages of an agent that enforces the three-tier example."""
    made = Reader(tmp_path)
    made.enforce_example("three-tier/web")
    return made


def by_abuse(number: int) -> Flow:
    """Return a packet that a rule dropped."""
    return replace(
        dropped(number, port=23),
        rule_id="sgr-web-abuse",
        security_group_id="sg-web",
        decided_by=DecidedBy.RULE,
    )


def many_rules(number: int) -> ResolvedPolicy:
    """Return a policy with this number of ingress rules."""
    rules = tuple(
        ResolvedRule(
            rule_id=f"sgr-{place}",
            security_group_id="sg-1",
            direction=Direction.INGRESS,
            authorization_objects=(),
            policy=Policy.ACCEPT,
            priority=1,
            protocols=(TCP,),
            ports=ALL_PORTS,
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
    """The sections are landmarks, and each tile links to one."""
    page = reader.open("/")
    sections = [section.attributes["id"] for section in page.one("main").all("section")]
    assert sections == ["rules", "drops", "warnings", "interfaces", "graph", "state", "explain"]
    tiles = [link.attributes["href"] for link in page.by_id("tiles").all("a")]
    assert tiles == ["#state", "#interfaces", "#drops", "#rules", "#warnings", "#state"]
    links = [(one.attributes["href"], "aria-current" in one.attributes) for one in page.one("nav").all("a")]
    assert links == [("./", True), ("rules", False), ("graph", False), ("explain", False)]
    assert page.one("h1").text == "Security groups of web-1"
    assert "healthy enforcing since" in page.one("header").text
    assert page.by_id("state").text.count("v1, since") == 1


def test_pages_can_be_used_by_keyboard_and_by_ear(reader: Reader) -> None:
    """No page has barriers for keyboard or screen reader, with or without errors."""
    reader.flow_log.drops = (dropped(1),)
    reader.totals = dict.fromkeys(_counters("sgr-web-ipv4"), CounterValue(packets=3, bytes=180))
    pages = (
        reader.open("/"),
        reader.open("/rules", {"interface": "eth0", "direction": "ingress"}),
        reader.open("/rules", {"text": "nothing has this"}),
        reader.open("/rule", ABUSE),
        reader.open("/graph", {"group": "sg-app"}),
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
    assert rows[1][1:] == ["basic", "web tier", "drop", "3", "2", "eth0"]


DESCRIPTIONS = {
    "sgr-base-ping": "the monitoring network",
    "sgr-base-ssh": "SSH from the offices",
    "sgr-web-abuse": "comes before the accepts, as its number is smaller",
}
"""Of the rules of the three-tier example that have one."""


def test_rules_are_in_order_of_precedence(reader: Reader) -> None:
    """They have their hits and descriptions; the default is last."""
    counter = rule_counter("sgr-web-ipv4", group_id="sg-web")
    reader.totals = {counter: CounterValue(packets=0, bytes=0)}
    reader.open("/")
    reader.totals = {counter: CounterValue(packets=1234, bytes=74040)}
    reader.clock.pass_seconds(STEP_SECONDS)
    reader.open("/")
    rows = table_of(reader.open("/"), "Ingress, into eth0")
    policy = reader.published.policy.interfaces[0].ingress
    assert [row[0] for row in rows if row[0].startswith("sgr-")] == [
        f"{rule.rule_id}{DESCRIPTIONS.get(rule.rule_id, '')}" for rule in policy.rules
    ]
    assert rows[-1][:3] == ["default", "", "drop"]
    (https,) = (row for row in rows if row[0] == "sgr-web-ipv4")
    assert https[7:9] == ["1,234", "74,040"]
    assert "1234 hits in 1 minute" in https[10]


@pytest.mark.one_python
def test_a_long_list_is_shown_in_parts(reader: Reader) -> None:
    """The overview shows the first rows and the default, and links to pages with all rows."""
    reader.enforce(many_rules(1_200))
    page = reader.open("/")
    rows = table_of(page, "Ingress, into eth0")
    assert len(rows) == ROWS_ON_OVERVIEW + 1
    assert rows[-1][0] == "default"
    assert "1100 lines more before the last, of 1201" in page.by_id("rules").text
    (rest,) = (link for link in page.by_id("rules").all("a") if "more before" in link.text)
    assert rest.attributes["href"] == "rules?interface=eth0&direction=ingress"
    seen: list[str] = []
    for first in (0, ROWS_PER_PAGE, 2 * ROWS_PER_PAGE):
        part = reader.open("/rules", {"interface": "eth0", "direction": "ingress", "from": first})
        seen += [row[0] for row in table_of(part, "Ingress, into eth0")]
    assert len(seen) == 1_201
    assert len(set(seen)) == 1_201
    last = reader.open("/rules", {"interface": "eth0", "direction": "ingress", "from": 1_100})
    (turning,) = (link for link in last.by_id("rules").all("a") if link.text.startswith("Lines "))
    assert turning.attributes["href"] == "rules?interface=eth0&direction=ingress&from=500"
    assert turning.text == "Lines 501 to 1000"


@pytest.mark.parametrize("first", ("-1", "x", "9999999", "99999999999999999999999"))
def test_a_part_that_is_not_there_is_the_nearest(reader: Reader, first: str) -> None:
    """For any value of "from", rows are shown."""
    page = reader.open("/rules", {"interface": "eth0", "direction": "egress", "from": first})
    assert table_of(page, "Egress, out of eth0")


def test_an_unknown_interface_has_no_rules(reader: Reader) -> None:
    """A link to an interface that has gone is answered by 404."""
    assert reader.get("/rules", {"interface": "eth7", "direction": "ingress"}).status is HTTPStatus.NOT_FOUND
    assert reader.get("/rule", ABUSE | {"interface": "eth7"}).status is HTTPStatus.NOT_FOUND
    assert reader.get("/rule").status is HTTPStatus.NOT_FOUND


def test_a_link_that_names_no_rule_has_no_page(reader: Reader) -> None:
    """Nor has a step that is no rule, like the default."""
    for missing in ABUSE:
        incomplete = {name: value for name, value in ABUSE.items() if name != missing}
        assert reader.get("/rule", incomplete).status is HTTPStatus.NOT_FOUND
    assert reader.get("/rule", {"interface": "eth0", "direction": "ingress"}).status is HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "shown"),
    (
        ({}, 9),
        ({"direction": "ingress"}, 6),
        ({"group": "sg-base"}, 2),
        ({"verdict": "drop"}, 3),
        ({"hit": "yes"}, 1),
        ({"hit": "never"}, 8),
        ({"text": "OFFICE"}, 1),
        ({"text": "443"}, 3),
        ({"text": "offices", "group": "sg-web"}, 0),
        ({"verdict": "drop", "direction": "egress", "text": "database", "hit": "never"}, 1),
    ),
)
def test_a_filter_leaves_what_it_says(reader: Reader, fields: dict[str, str], shown: int) -> None:
    """On the overview and on the page of the rules alike, and the form keeps what was chosen."""
    reader.totals = dict.fromkeys(_counters("sgr-web-ipv4"), CounterValue(packets=3, bytes=180))
    for path in ("/", "/rules"):
        rules = reader.open(path, fields).by_id("rules")
        assert sum(len(list(body.all("tr"))) for body in rules.all("tbody")) == shown
        assert f"{shown} of 9 lines" in rules.text
        assert ("No rule matches this filter." in rules.text) is (shown == 0)
        form = rules.one("form")
        kept = {part.attributes["name"]: part.attributes["value"] for part in form.all("input")}
        for select in form.all("select"):
            chosen = [option for option in select.all("option") if "selected" in option.attributes]
            kept[select.attributes["name"]] = chosen[0].attributes["value"]
        assert {name: value for name, value in kept.items() if value} == fields


def test_pages_of_a_filtered_list_keep_the_filter(reader: Reader) -> None:
    """A link to the next rows has every field that is set."""
    reader.enforce(many_rules(1_200))
    fields: dict[str, str | int] = {"interface": "eth0", "direction": "ingress", "text": "sgr-1"}
    rules = reader.open("/rules", fields).by_id("rules")
    assert "311 of 1202 lines" in rules.text
    assert len(table_of(reader.open("/rules", fields), "Ingress, into eth0")) == 311
    overview = reader.open("/", {"text": "sgr-1"}).by_id("rules")
    (rest,) = (link for link in overview.all("a") if "more before" in link.text)
    assert rest.attributes["href"] == "rules?text=sgr-1&interface=eth0&direction=ingress"


def test_a_rule_leads_to_its_definition_its_drops_and_a_packet(reader: Reader) -> None:
    """Its page quotes the document, lists its drops alone, and fills in the form."""
    reader.flow_log.drops = (dropped(1, port=23), by_abuse(2))
    overview = reader.open("/")
    (link,) = (link for link in overview.by_id("rules").all("a") if link.text == "sgr-web-abuse")
    page = reader.open("/rule", _fields(link))
    assert page.one("h1").text == "Rule sgr-web-abuse of sg-web"
    assert page.by_id("definition").text == "front.yaml:45"
    (line,) = (line for line in page.one("pre").all("span") if "here" in line.attributes["class"])
    assert line.text.split() == ["45", "-", "rule_id:", "sgr-web-abuse"]
    assert len(table_of(page, "The newest first")) == 1
    (question,) = (link for link in page.by_id("rule").all("a") if link.text.startswith("Explain"))
    answer = reader.open("/explain", _fields(question)).by_id("answer")
    assert "Decided by rule sgr-web-abuse of sg-web" in answer.text
    assert _fields(next(answer.all("a"))) == ABUSE


@pytest.mark.one_python
def test_every_rule_of_every_example_can_be_explained(tmp_path: Path) -> None:
    """The packet that its page fills in matches it, and is never refused."""
    reader = Reader(tmp_path)
    explained = 0
    tiers = ("three-tier/web", "three-tier/app", "three-tier/database")
    for example in (*tiers, "7-both-families", "8-expiry", "10-names"):
        reader.enforce_example(example)
        page = reader.open("/rules")
        for link in [link for table in page.all("table") for link in table.all("a")]:
            rule = reader.open("/rule", _fields(link))
            for question in [link for link in rule.by_id("rule").all("a") if link.text.startswith("Explain")]:
                answer = reader.open("/explain", _fields(question)).by_id("answer")
                assert link.text in answer.text, answer.text
                explained += 1
    assert explained > 8


def test_a_drop_leads_to_its_rule_and_its_question(reader: Reader) -> None:
    """Where a rule decided; the form is filled in with the packet for each."""
    reader.flow_log.drops = (dropped(1, port=23), by_abuse(2))
    links = [_fields(link) for link in reader.open("/").by_id("drops").all("a")]
    assert links[0] == ABUSE
    assert links[1] == links[2]
    assert len(links) == 3
    answer = reader.open("/explain", links[2]).by_id("answer").text
    assert "drop ingress tcp from 203.0.113.9 port 40000 to 10.0.0.11 port 23 on eth0" in answer


def test_tiles_show_the_last_minute_and_the_last_hour(reader: Reader) -> None:
    """Figures of a minute, and a bar for each minute, drawn without a script."""
    default = DefaultCounter(interface="eth0", direction=Direction.INGRESS, verdict=Policy.DROP)
    (accepted,) = _counters("sgr-web-ipv4")
    assert _tiles(reader)["Drops"].startswith("– /min")
    for second in range(0, 200, 10):
        reader.clock.pass_seconds(SAMPLE_SECONDS)
        reader.totals = {
            default: CounterValue(packets=second, bytes=0),
            accepted: CounterValue(packets=2 * second, bytes=0),
        }
        reader.open("/")
    tiles = _tiles(reader)
    assert list(tiles) == ["Verdict", "Mode", "Drops", "Sessions judged", "Warnings", "Policy age"]
    assert tiles["Drops"].startswith("60 /min")
    assert "190 in 4 minutes" in tiles["Drops"]
    assert tiles["Sessions judged"].startswith("180 /min")
    assert tiles["Mode"].startswith("enforce")
    assert tiles["Policy age"].startswith("3 minutes")
    svgs = list(reader.open("/").by_id("tiles").all("svg"))
    assert [list(svg.all("path"))[1].attributes["d"].count("v-") for svg in svgs] == [4, 4, 4, 4, 0, 4]
    drawn = [svg.attributes["aria-label"] for svg in svgs]
    assert drawn == [
        f"{what} in 4 minutes"
        for what in ("healthy", "enforced", "drops", "sessions judged", "warnings", "policy age")
    ]


def _tiles(reader: Reader) -> dict[str, str]:
    """Return the texts of the tiles by their labels."""
    tiles = (list(tile.all("span")) for tile in reader.open("/").by_id("tiles").all("a"))
    return {label.text: " ".join(span.text for span in rest) for label, *rest in tiles}


def _fields(link: Part, attribute: str = "href") -> dict[str, str | int]:
    """Return the fields of a link."""
    return dict(parse_qsl(urlsplit(link.attributes[attribute]).query))


def test_the_stream_says_when_something_changed(reader: Reader) -> None:
    """Each event is a number that grows with changes alone."""
    response = reader.get("/events")
    assert response.content_type == "text/event-stream"
    assert response.make_event is not None
    before = response.make_event()
    assert response.make_event() == before
    reader.open("/")
    after = response.make_event()
    assert int(after.removeprefix(b"data: ")) > int(before.removeprefix(b"data: "))
    assert after.endswith(b"\n\n")


def test_an_interface_that_is_only_observed_says_so(reader: Reader) -> None:
    """Its drops are marked as not carried out."""
    (judge,) = reader.published.policy.interfaces
    reader.enforce(ResolvedPolicy(interfaces=(replace(judge, mode=Mode.OBSERVE),)))
    page = reader.open("/")
    assert "eth0 is in observe mode: nothing is dropped" in page.by_id("rules").text
    assert table_of(page, "Ingress, into eth0")[-1][2] == "would drop"


def test_findings_are_those_of_lint(reader: Reader) -> None:
    """Each has its code, reason, remedy and place."""
    text = reader.open("/").by_id("warnings").text
    assert "nothing_listens" in text
    assert "What to do: " in text
    assert "front.yaml:" in text


def test_who_may_talk_to_whom_is_drawn_and_said(reader: Reader) -> None:
    """The graph is an SVG with its own policy, and a list below has its edges as text."""
    section = reader.open("/").by_id("graph")
    drawing = reader.get(f"/{section.one('img').attributes['src']}")
    assert b'class="edge way"' not in drawing.content
    assert (drawing.status, drawing.content_type) == (HTTPStatus.OK, "image/svg+xml")
    assert "default-src 'none'" in dict(drawing.headers)["Content-Security-Policy"]
    assert b"sg-database" in drawing.content
    sentences = [item.text for item in section.one("details").all("li")]
    assert any("sg-web" in text and "sg-app" in text for text in sentences)


def test_the_edges_of_a_group_stand_out(reader: Reader) -> None:
    """In the drawing, and alone in the list; both ends link on."""
    page = reader.open("/graph", {"group": "sg-app"})
    source = page.by_id("graph").one("img").attributes["src"]
    drawing = reader.get("/graph.svg", _fields(page.by_id("graph").one("img"), "src")).content
    assert source == "graph.svg?group=sg-app"
    assert drawing.count(b'class="edge way"') == 2
    for group in ("sg-app", "sg-database"):
        content = reader.get("/graph.svg", {"group": group}).content
        assert content.count(b'class="node way"') == 1, group
    edges = [item.text for item in page.by_id("edges").all("li")]
    assert len(edges) == 3
    assert all("sg-app" in edge for edge in edges)
    assert {"graph?group=sg-web", "graph?group=sg-database"} < {
        link.attributes["href"] for link in page.by_id("edges").all("a")
    }
    unknown = reader.open("/graph", {"group": "sg-nowhere"})
    assert len(list(unknown.by_id("edges").all("li"))) > 3


def test_what_is_too_much_to_draw_is_said_in_words(reader: Reader) -> None:
    """A graph with too many edges is listed only; the edges of one group may still be drawn."""
    numbers = range(MOST_EDGES + 1)
    rules = "\n".join(
        f"      - {{rule_id: r{number}, direction: ingress, policy: accept, priority: 1, protocol: tcp, "
        f"port_range: 443, authorization_object: 10.{number // 250}.{number % 250}.0/24}}"
        for number in numbers
    )
    text = (
        "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    inner_access_policy: drop\n"
        f"    rules:\n{rules}\n"
        "  - {security_group_id: sg-2, inner_access_policy: accept}\n"
        "network_interfaces:\n"
        "  - {network_interface_id: eni-1, addresses: [10.9.9.9], security_group_ids: [sg-1]}\n"
        "  - {network_interface_id: eni-2, addresses: [10.8.8.8, 10.8.8.9], security_group_ids: [sg-2]}\n"
        "  - {network_interface_id: eni-3, addresses: [10.8.8.10], security_group_ids: [sg-2]}\n"
    )
    reader.enforce(many_rules(1), (DocumentFile("a.yaml", text.encode()),), version="v2")
    section = reader.open("/").by_id("graph")
    assert f"{MOST_EDGES + 2} edges as text" in section.text
    assert list(section.all("img")) == []
    assert reader.get("/graph.svg").status is HTTPStatus.NOT_FOUND
    assert len(list(section.all("li"))) == MOST_EDGES + 2
    assert reader.get("/graph.svg", {"group": "sg-1"}).status is HTTPStatus.NOT_FOUND
    small = reader.open("/graph", {"group": "sg-2"}).by_id("graph")
    drawing = reader.get("/graph.svg", _fields(small.one("img"), "src"))
    assert drawing.status is HTTPStatus.OK
    assert b"sg-2" in drawing.content
    assert b"sg-1" not in drawing.content


def test_drops_are_shown_the_newest_first(reader: Reader) -> None:
    """Their number is limited, and both ends have their names, if known."""
    reader.flow_log.drops = tuple(map(dropped, range(1, MOST_DROPS + 20)))
    rows = table_of(reader.open("/"), "The newest first")
    assert len(rows) == MOST_DROPS
    del rows[0][2]
    assert rows[0] == [
        "203.0.113.9 port 40000",
        "drop",
        "10.0.0.11 port 22 (eni-web-1, sg-web)",
        "tcp",
        "eth0 ingress",
        "default",
        "Explain",
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
    (judge,) = reader.published.policy.interfaces
    reader.enforce(ResolvedPolicy(interfaces=(judge, replace(judge, name="eth1"))))
    page = reader.open("/explain", PACKET)
    assert [option.text for option in page.by_id("interface").all("option")] == ["eth0", "eth1"]
    assert "several interfaces are bound" in page.by_id("answer").text
    assert "on eth1" in reader.open("/explain", PACKET | {"interface": "eth1"}).by_id("answer").text


def test_a_refutation_stands_out(reader: Reader) -> None:
    """On every page, in its own words and before all else; a proof does not."""
    words = ("refuted: the table does not do what the policy says", "packet   <egress> on eth0")
    for outcome in (Outcome.PROVED, Outcome.REFUTED):
        reader.published.note_verified(
            ProofReport(
                outcome=outcome,
                version="v1",
                generation=1,
                seconds=0.1,
                at=1.0,
                description=(words[0], f"  {words[1]}"),
            ),
            Durations(),
        )
        for path in ("/", "/rules", "/explain"):
            page = reader.open(path)
            alerts = [one for one in page.by_id("lead").all("div") if one.attributes.get("role") == "alert"]
            assert len(alerts) == (outcome is Outcome.REFUTED)
            if alerts:
                assert [line.text for line in alerts[0].all("p")] == list(words)
                assert "needs attention" in page.by_id("lead").text
            assert barriers(page) == []


def test_before_anything_is_known_the_page_says_so(tmp_path: Path) -> None:
    """The page works before the first step."""
    page = Reader(tmp_path).open("/")
    assert "needs attention starting" in page.one("header").text
    assert "No definitions are in force." in page.by_id("warnings").text
    assert "needs attention" in page.by_id("tiles").text
    assert [reason.text for reason in page.by_id("lead").all("li")] == ["nothing is enforced"]
    assert barriers(page) == []


def test_a_browser_may_load_nothing_from_elsewhere(reader: Reader) -> None:
    """One script of our own, no inline styles, no foreign resources, no frames, no cache."""
    response = reader.get("/")
    headers = dict(response.headers)
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert {
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    } <= set(CONTENT_SECURITY_POLICY.split("; "))
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    page = reader.open("/")
    assert list(page.all("style", "iframe", "object", "base")) == []
    (script,) = page.all("script")
    assert (script.attributes["src"], script.content) == ("page.js", [])
    linked = [*page.all("link", "a", "img", "form")]
    targets = [part.attributes.get("href") or part.attributes.get("action") or "" for part in linked]
    assert [target for target in targets if ":" in target or target.startswith("/")] == []
    assert not any(key.startswith("on") or key == "style" for part in page.all() for key in part.attributes)


def test_what_pages_load_is_there(reader: Reader) -> None:
    """The style sheet, the icon and the script are served; the script is small."""
    page = reader.open("/")
    loaded = [link.attributes["href"] for link in page.all("link")]
    assert len(reader.get("/page.js").content) < 6_000
    for name in (*loaded, "page.js"):
        response = reader.get(f"/{name}")
        assert response.status is HTTPStatus.OK
        assert response.content
        assert "url(" not in response.content.decode()


@pytest.mark.parametrize(
    "path",
    (
        "/",
        "/rules",
        "/rule",
        "/explain",
        "/graph",
        "/graph.svg",
        "/events",
        "/page.css",
        "/page.js",
        "/icon.svg",
    ),
)
def test_a_strangers_name_gets_nothing(reader: Reader, path: str) -> None:
    """DNS rebinding gets 421 instead of a page."""
    response = reader.get(path, host="evil.example:9469")
    assert response.status is HTTPStatus.MISDIRECTED_REQUEST
    assert reader.get(path, host="web-1:9469").status is not HTTPStatus.MISDIRECTED_REQUEST


def _counters(rule_id: str) -> list[RuleCounter]:
    return [rule_counter(rule_id, group_id="sg-web")]


def test_rules_that_expire_have_a_column(tmp_path: Path) -> None:
    """Only where there are any; it has the instant."""
    reader = Reader(tmp_path)
    reader.enforce_example("8-expiry")
    ingress = next(iter(reader.open("/rules").all("table")))
    heads, *rows = (list(row.all("th")) + list(row.all("td")) for row in ingress.all("tr"))
    assert heads[-1].text == "Expires"
    ends = {row[0].text.split()[0]: row[-1].text for row in rows}
    assert ends["sgr-migration"].startswith(("2099-12-31", "2100-01-01"))
    assert ends["sgr-smtp"] == ""
    reader.enforce_example("7-both-families")
    assert "Expires" not in reader.open("/rules").text


def test_the_paths_are_known_before_the_pages_are_made(reader: Reader) -> None:
    """The server knows them from its start, and makes the pages when one is asked for."""
    assert tuple(reader.pages) == STATUS_PATHS
    made = list[str]()

    def make() -> Mapping[str, Page]:
        made.append("pages")
        return reader.pages

    pages = made_when_asked(STATUS_PATHS, make)
    assert made == []
    for path in ("/", "/rules"):
        assert pages[path](Request()).status is HTTPStatus.OK
    assert made == ["pages"]
