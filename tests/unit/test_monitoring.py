"""What monitoring/ asks of the metrics exists, is answered in the runbook, and is tried."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "prometheus" / "sgagent.rules.yaml"
TESTS = tuple(sorted(RULES.parent.glob("*.test.yaml")))
DASHBOARD = ROOT / "monitoring" / "grafana" / "sgagent.json"
METRIC = re.compile(r"(?<![\w:])sgagent_\w+")
ANCHOR = re.compile(r"^#+ (.+)$", re.MULTILINE)


def rules() -> list[dict[str, Any]]:
    """Return every rule, as it is written."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, rows among them."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> Iterator[str]:
    """Yield every expression of rules and dashboard."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", ()))
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])
    yield from (
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    )


def read(name: str) -> str:
    """Return a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_only_documented_metrics_are_asked_for() -> None:
    """A histogram is asked for by its buckets; nothing else has another name than in docs/metrics.md."""
    documented = set(re.findall(r"`(sgagent_\w+)`", read("docs/metrics.md")))
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 20
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= documented


def test_every_metric_is_shown() -> None:
    """What the agent tells of itself can be looked at in the dashboard."""
    documented = set(re.findall(r"^\| `(sgagent_\w+)` \|", read("docs/metrics.md"), re.MULTILINE))
    shown = "".join(target["expr"] for panel in panels() for target in panel.get("targets", ()))
    assert [name for name in sorted(documented) if name not in shown] == []


@pytest.mark.parametrize("name", alerts())
def test_each_alert_has_an_answer(name: str) -> None:
    """It says how urgent it is and what it means, and names a part of the runbook, which knows it too."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook", "runbook_url"}
    assert not notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    path, _, anchor = notes["runbook"].partition("#")
    headings = {heading.lower().replace(" ", "-") for heading in ANCHOR.findall(read(path))}
    assert anchor in headings
    assert notes["runbook_url"] == f"{{{{ $externalLabels.sgagent_runbook }}}}#{anchor}"
    rows = [line for line in read("docs/runbook.md").splitlines() if line.startswith("|")]
    assert [row for row in rows if f"`{name}`" in row and f"(#{anchor})" in row]


def test_the_runbook_names_no_other_alert() -> None:
    """Whatever it calls an alert is one of the rules."""
    assert set(re.findall(r"`(Sgagent\w+)`", read("docs/runbook.md"))) == set(alerts())


def test_the_readme_counts_the_rules() -> None:
    """As many alerts as there are, and as many rules as promtool finds."""
    text = read("monitoring/README.md")
    assert f" {len(alerts())} alerts, " in text
    records = [rule["record"] for rule in rules() if "record" in rule]
    assert [name for name in records if f"`{name}`" not in text] == []
    assert f"SUCCESS: {len(rules())} rules found" in text


def test_each_alert_and_each_record_is_tried() -> None:
    """Promtool's tests name every one; integration/test_monitoring.py runs them."""
    tried = "".join(path.read_text(encoding="utf-8") for path in TESTS)
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert [name for name in names if name not in tried] == []


def test_panels_say_what_they_show() -> None:
    """Each has a title, a description, a unit and a number, and asks the source that is chosen."""
    shown = [panel for panel in panels() if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert all(panel["title"] and panel["description"].endswith(".") for panel in shown)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in shown)
    sources = {source["uid"] for panel in shown for source in (panel["datasource"], *_sources(panel))}
    assert sources == {"${datasource}"}


def _sources(panel: dict[str, Any]) -> Iterator[dict[str, str]]:
    return (target["datasource"] for target in panel["targets"])


def test_the_figures_of_the_page_come_first() -> None:
    """In the order of its tiles, in one row."""
    first = [panel["title"] for panel in panels() if panel["gridPos"]["y"] == 1]
    words = ("Verdict", "Mode", "Drops per minute", "Sessions judged", "Warnings", "Policy age")
    assert [title.startswith(word) for title, word in zip(first, words, strict=True)] == [True] * len(words)


def test_panels_do_not_cover_each_other() -> None:
    """They lie side by side in the 24 columns that there are."""
    places = [panel["gridPos"] for panel in panels()]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    covered = [
        (one, other)
        for one, other in combinations(places, 2)
        if one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    ]
    assert covered == []


def test_every_panel_follows_the_choice_at_the_top() -> None:
    """Whoever chooses a host sees nothing of the others."""
    targets = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert [expression for expression in targets if 'instance=~"$instance"' not in expression] == []
