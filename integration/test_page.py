"""The page in a real browser, served by the daemon on a host with traffic."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.browser import Browser, browser_on, why_not
from integration.lab import Lab, host_with_address, wait_for
from integration.service import METRICS_PORT, Service, definitions, is_let_in, service_on
from sgagent.agent.web.http_server import MOST_STREAMS

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
POLICY = definitions(
    "ingress accept 1 tcp 80 from 0.0.0.0/0",
    "ingress drop 1 tcp 23 from 0.0.0.0/0",
    "ingress accept 2 tcp 22 from 198.51.100.0/24",
)
PAGE = f"http://127.0.0.1:{METRICS_PORT}/"
RULE = "rule?interface=eth0&direction=ingress&group=sg-1&rule=sgr-1"
PATHS = ("", "explain?direction=ingress&source=x", "rules", RULE, "graph?group=sg-1", "explain")
"""Every page, and a form with errors."""

WIDTHS = (320, 390, 768, 1280)
"""Of a magnified page, a phone, a tablet and a desk."""

AXE = Path(__file__).parent.parent / ".cache/npm/axe-core@4.14.1/axe.min.js"

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"no page can be opened: {_reason}")


wire = pytest.fixture(scope="module")(host_with_address)


@pytest.fixture(scope="module")
def agent(wire: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Have an agent that has let in, and dropped."""
    with service_on(wire.host, tmp_path_factory.mktemp("page")) as made:
        made.define(POLICY)
        made.start()
        for port in (80, 80, 23, 24):
            is_let_in(wire, CLIENT, HOST, port)
        wait_for(lambda: "being inspected" not in made.get("/")[1], "the definitions to be inspected")
        wait_for(lambda: "198.51.100.7 port" in made.get("/")[1], "the drops to be told of")
        yield made


@pytest.fixture(scope="module")
def started(wire: Lab) -> Iterator[Browser]:
    """Start a browser on the host."""
    with browser_on(wire.host) as made:
        yield made


@pytest.fixture
def browser(agent: Service, started: Browser) -> Iterator[Browser]:
    """Give the browser, which must find nothing to complain about."""
    assert agent.pid
    started.complaints.clear()
    started.resize(1280, 900)
    started.prefer(prefers_color_scheme="light")
    yield started
    assert started.complaints == []


def test_the_page_opens(browser: Browser) -> None:
    """It shows the rules with their hits, and its style is taken."""
    browser.open(PAGE)
    assert browser.evaluate("document.title").startswith("Security groups of ")
    rows = browser.evaluate(_ROWS)
    assert ["sgr-0", "accept", "2"] in rows
    assert ["sgr-1", "drop", "1"] in rows
    assert ["default", "drop", "1"] in rows
    drops = browser.evaluate("document.querySelector('#drops').innerText")
    assert "sgr-1 of sg-1" in drops
    assert "198.51.100.7 port 1024" in drops
    assert browser.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"


_ROWS = """
[...document.querySelectorAll('#rules table')][0] &&
[...[...document.querySelectorAll('#rules table')][0].tBodies[0].rows].map(
  row => [0, 2, 7].map(number => row.cells[number].innerText.trim()))
"""
"""The names, verdicts and hits of what decides inwards."""


def test_the_drawing_is_shown(browser: Browser) -> None:
    """The picture is loaded, in the page's own colours: also in dark."""
    browser.open(PAGE)
    browser.wait_for("document.querySelector('#graph img').complete")
    assert browser.evaluate("document.querySelector('#graph img').naturalWidth") > 100
    browser.open(f"{PAGE}graph.svg")
    assert browser.evaluate("getComputedStyle(document.querySelector('.paper')).fill") == "rgb(255, 255, 255)"
    browser.prefer(prefers_color_scheme="dark")
    dark = browser.evaluate("getComputedStyle(document.querySelector('.paper')).fill")
    assert sum(map(int, dark[4:-1].split(","))) < 200


def test_no_other_script_would_run(browser: Browser) -> None:
    """The policy forbids scripts, styles and markup from text in the page, whoever got them there."""
    browser.open(PAGE)
    browser.evaluate(
        """
        window.forbidden = [];
        document.addEventListener(
          'securitypolicyviolation', event => forbidden.push(event.effectiveDirective));
        const script = document.createElement('script');
        script.append('window.harm = 1');
        const attempts = [
          () => document.body.append(script),
          () => document.body.insertAdjacentHTML('beforeend', '<details open ontoggle="window.harm = 2">'),
          () => document.body.setAttribute('onclick', 'window.harm = 3'),
          () => document.body.setAttribute('style', 'top: 0'),
        ];
        for (const attempt of attempts) {
          try { attempt(); } catch (refused) { console.assert(refused instanceof TypeError); }
        }
        document.body.click();
        """
    )
    browser.wait_for("forbidden.includes('style-src-attr')")
    assert set(browser.evaluate("forbidden")) >= {"require-trusted-types-for", "style-src-attr"}
    assert browser.evaluate("window.harm") is None
    browser.complaints.clear()


def test_the_form_works_by_keyboard_alone(browser: Browser) -> None:
    """From the address bar on: skip to the content, come to the form, fill it in, and send it."""
    browser.open(PAGE)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.hash") == "#content"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    for _ in range(120):
        if browser.evaluate("document.activeElement.id") == "direction":
            break
        browser.press("Tab")
    for name, text in (
        ("source", "198.51.100.7"),
        ("destination", "10.0.0.11"),
        ("protocol", "tcp"),
        ("port", "23"),
    ):
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.id") == name
        browser.write(text)
    browser.press("Tab", "Tab", "Tab", "Enter")
    browser.wait_for("location.pathname === '/explain' && document.readyState === 'complete'")
    answer = browser.evaluate("document.querySelector('#answer').innerText")
    assert "drop ingress tcp from 198.51.100.7" in answer
    assert "sgr-1 of sg-1" in answer
    assert browser.evaluate("document.querySelector('#port').value") == "23"


def test_a_fault_leads_to_its_field(browser: Browser) -> None:
    """The link in the list of faults puts the cursor where something is to be mended."""
    browser.open(f"{PAGE}explain?direction=ingress&source=nowhere&destination=10.0.0.11&protocol=tcp&port=80")
    browser.evaluate("document.querySelector('#answer a').focus()")
    browser.press("Enter")
    browser.wait_for("document.activeElement.id === 'source' || location.hash === '#source'")
    assert browser.evaluate("document.querySelector('#source').getAttribute('aria-invalid')") == "true"


def test_it_works_without_scripts(browser: Browser) -> None:
    """Nothing is different where the reader has switched them off."""
    browser.open(PAGE)
    sections = [_value(node, "name") for node in browser.accessible() if _value(node, "role") == "heading"]
    browser.forbid_scripts()
    browser.open(f"{PAGE}?text=sgr-1#rules")
    heard = browser.accessible()
    browser.forbid_scripts(forbidden=False)
    assert [_value(node, "name") for node in heard if _value(node, "role") == "heading"] == sections
    names = {_value(node, "name") for node in heard}
    assert {"Rules", "What becomes of a packet?", "Explain", "Refresh", "Filter", "sgr-1"} <= names
    assert not {"sgr-0", "Pause"} & names


@pytest.mark.sampled(6)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(browser: Browser, path: str, width: int) -> None:
    """Nobody has to scroll sideways, on a phone as little as at a desk."""
    browser.resize(width, 740)
    browser.open(PAGE + path)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(_OVER_THE_EDGE) == []


_OVER_THE_EDGE = """
[...document.querySelectorAll('main *')].filter(one => !one.closest('.drawing, .excerpt, thead') &&
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(one => one.outerHTML)
"""


def test_the_longest_ids_break(browser: Browser, agent: Service) -> None:
    """Also where there is nothing at which a line could end."""
    longest = "r" * 128
    agent.define(POLICY.replace("sgr-1", longest).replace("sg-1", f"sg-{'g' * 125}"))
    wait_for(lambda: longest in agent.get("/")[1], "the page to show the new policy")
    browser.open(PAGE)
    for width in WIDTHS:
        browser.resize(width, 740)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    agent.define(POLICY)
    wait_for(lambda: longest not in agent.get("/rules?interface=eth0&direction=ingress")[1], "the old one")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("path", PATHS)
def test_everything_can_be_read(browser: Browser, scheme: str, path: str) -> None:
    """Each text stands out from its ground by 4.5 to 1 at least, in light and in dark."""
    browser.prefer(prefers_color_scheme=scheme)
    browser.open(PAGE + path)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")
    assert json.loads(browser.evaluate(_FAINT)) == []


_FAINT = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [red, green, blue] = parts(colour).slice(0, 3).map(part => part / 255).map(
      part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      const [, , , opacity = 1] = parts(colour);
      if (opacity > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  for (const one of document.querySelectorAll('body *')) {
    const texts = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!texts || !one.getClientRects().length) continue;
    const [low, high] = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.push(`${one.outerHTML}: ${contrast.toFixed(2)}`);
  }
  return JSON.stringify(faint);
})()
"""
"""Texts whose contrast is too low, by the formula of WCAG 2."""


def test_a_screen_reader_hears_what_is_shown(browser: Browser) -> None:
    """Landmarks, headings, tables with their headings, and a name for each field and drawing."""
    browser.open(PAGE)
    heard = [(_value(node, "role"), _value(node, "name")) for node in browser.accessible()]
    roles = {role for role, _ in heard}
    assert {"banner", "navigation", "main", "contentinfo", "table", "columnheader", "rowheader"} <= roles
    fields = [name for role, name in heard if role in {"searchbox", "textbox", "combobox"}]
    of_filter = ["Text", "Direction", "Group", "Verdict", "Hits"]
    assert fields == [
        *of_filter,
        "Direction",
        "Source",
        "Destination",
        "Protocol",
        "Port",
        "Source port",
        "ICMP type",
    ]
    nameless = {"button", "link", "heading", "img", "image", "table", "region"}
    assert [role for role, name in heard if role in nameless and not name] == []


@pytest.mark.parametrize("width", (360, 1280))
def test_a_table_stays_a_table(browser: Browser, width: int) -> None:
    """Also where a narrow screen shows its rows one below the other."""
    browser.resize(width, 740)
    browser.open(PAGE)
    roles = [_value(node, "role") for node in browser.accessible()]
    assert roles.count("table") == browser.evaluate("document.querySelectorAll('table').length")
    assert roles.count("cell") + roles.count("rowheader") == browser.evaluate(
        "[...document.querySelectorAll('tbody th, tbody td')].filter(one => one.checkVisibility()).length"
    )


def test_what_has_the_focus_is_seen(browser: Browser) -> None:
    """Each link and field has an outline while it has it."""
    browser.open(PAGE)
    unseen, reached = [], 0
    browser.press("Tab")
    while browser.evaluate("document.activeElement !== document.body"):
        reached += 1
        if browser.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") < 2:
            unseen.append(browser.evaluate("document.activeElement.outerHTML"))
        browser.press("Tab")
    assert unseen == []
    controls = "[...document.querySelectorAll('a, input, select, button')]"
    assert reached >= browser.evaluate(f"{controls}.filter(one => one.checkVisibility()).length")


@pytest.mark.sampled(3)
@pytest.mark.skipif(not AXE.exists(), reason=f"no {AXE}; script/setup --development fetches it, as root")
@pytest.mark.parametrize(
    ("width", "scheme"),
    (
        (390, "light"),
        pytest.param(1280, "dark", marks=pytest.mark.long),
        pytest.param(390, "dark", marks=pytest.mark.long),
        pytest.param(1280, "light", marks=pytest.mark.long),
    ),
)
@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_no_barrier(browser: Browser, path: str, width: int, scheme: str) -> None:
    """By the rules of WCAG 2.2, levels A and AA, and axe's best practices, with everything unfolded."""
    browser.resize(width, 844)
    browser.prefer(prefers_color_scheme=scheme)
    browser.open(PAGE + path)
    browser.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.evaluate(f"{AXE.read_text(encoding='utf-8')};0")
    found = json.loads(browser.evaluate(_AXE))
    assert found["violations"] == []
    assert found["incomplete"] == []
    assert found["passes"] > 20


_AXE = """
axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then(found => {
  const told = results => results.map(one => [one.id, one.help, one.nodes.map(node => node.html)]);
  return JSON.stringify({
    violations: told(found.violations), incomplete: told(found.incomplete), passes: found.passes.length});
})
"""


def test_an_open_page_follows_the_host(browser: Browser, wire: Lab) -> None:
    """Hits and drops appear without a reload; who has paused is left alone."""
    browser.open(PAGE)
    browser.wait_for("document.querySelector('#live').textContent === 'Live'")
    browser.evaluate("window.isSame = true")
    browser.evaluate("document.querySelector('#rules tbody a').focus()")
    before = _hits(browser, "sgr-1")
    is_let_in(wire, CLIENT, HOST, 23)
    browser.wait_for(f"{_HITS % 'sgr-1'} > {before}")
    assert browser.evaluate("window.isSame") is True
    assert browser.evaluate("document.activeElement === document.querySelector('#rules tbody a')")
    browser.evaluate("document.querySelector('#pause').click()")
    assert browser.evaluate("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    assert browser.evaluate("document.querySelector('#live').textContent") == "Paused"
    browser.evaluate("document.querySelector('#pause').click()")
    browser.wait_for("document.querySelector('#live').textContent === 'Live'")


def _hits(browser: Browser, rule_id: str) -> int:
    return int(browser.evaluate(_HITS % rule_id))


_HITS = """
Number([...document.querySelectorAll('#rules tbody tr')].find(
  row => row.cells[0].innerText.startsWith('%s')).cells[7].innerText)
"""
"""How often a rule was hit, as the page shows it."""


def test_the_filter_works_while_one_types(browser: Browser) -> None:
    """The rows change, the field keeps the focus, and the address can be shared."""
    browser.open(PAGE)
    browser.evaluate("document.querySelector('#filter-text').focus()")
    browser.write("sgr-1")
    browser.wait_for("document.querySelectorAll('#rules tbody tr').length === 1")
    assert browser.evaluate("document.activeElement.id") == "filter-text"
    assert browser.evaluate("location.search") == "?text=sgr-1"
    browser.open(browser.evaluate("location.href"))
    assert browser.evaluate("document.querySelector('#filter-text').value") == "sgr-1"
    assert browser.evaluate("document.querySelectorAll('#rules tbody tr').length") == 1


def test_without_a_stream_the_page_is_whole(browser: Browser, wire: Lab) -> None:
    """Who comes when all streams are taken reads that the page is not live, and may refresh it."""
    browser.open(f"{PAGE}healthz")
    with contextlib.ExitStack() as stack:
        with wire.host.entered():
            for _ in range(MOST_STREAMS):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", METRICS_PORT)))
                client.sendall(b"GET /events HTTP/1.0\r\n\r\n")
                with client.makefile("rb") as answer:
                    assert any(line.startswith(b"data: ") for line in answer)
        browser.open(PAGE)
        browser.wait_for("document.querySelector('#live').textContent === 'Not live'")
        assert _hits(browser, "sgr-0") == 2
    assert all("503" in complaint for complaint in browser.complaints)
    browser.complaints.clear()


def test_the_graph_fits_and_shows_one_group(browser: Browser) -> None:
    """The drawing scrolls in its own frame, and choosing a group changes the list without a reload."""
    browser.resize(390, 844)
    browser.open(f"{PAGE}graph")
    browser.evaluate("window.isSame = true")
    browser.evaluate(
        "const one = document.querySelector('#graph-group'); one.value = 'sg-1';"
        "one.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    browser.wait_for("document.querySelector('#edges summary').innerText.endsWith('of sg-1')")
    assert browser.evaluate("window.isSame") is True
    assert browser.evaluate("document.querySelector('#graph img').src").endswith("graph.svg?group=sg-1")
    browser.wait_for("document.querySelector('#graph img').complete")
    assert browser.evaluate("getComputedStyle(document.querySelector('.drawing')).overflowX") == "auto"


def _value(node: dict[str, dict[str, str]], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))


def test_who_wants_no_page_has_none(wire: Lab, tmp_path: Path) -> None:
    """Pages for programs are there all the same."""
    with service_on(wire.peer, tmp_path) as other:
        other.configure('[metrics]\npage = "never"\n')
        other.define(POLICY)
        other.start()
        assert other.get("/")[0] == HTTPStatus.NOT_FOUND
        assert other.get("/healthz")[0] == HTTPStatus.OK
