"""Format metrics in both text formats of Prometheus.

The library makes an object and sorts labels for each sample. That takes 0.1 s for 10,000 rules, in which the
loop that enforces changes waits for the interpreter. So the families of rules format their own lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from sgagent.nft.counter_keys import RuleCounter

_OPEN_METRICS = "application/openmetrics-text"
_END = b"# EOF\n"


class RuleHits(Metric):
    """A family of counters with one sample for each rule."""

    def __init__(self, name: str, documentation: str, rules: RuleLabels, values: Sequence[int]) -> None:
        """Make a family.

        Args:
            name: without the suffix ``_total``.
            documentation: one line.
            rules: whose hits these are.
            values: in the order of the rules.
        """
        self.name = name
        self.documentation = documentation
        self.type = "counter"
        self.unit = ""
        self._rules = rules
        self._values = values

    @property
    def samples(self) -> list[Sample]:  # type: ignore[override]  # a scrape does not call it
        """Return the samples as objects of the library."""
        name = f"{self.name}_total"
        return [
            Sample(name, labels_of(key), value)
            for key, value in zip(self._rules.keys, self._values, strict=True)
        ]

    def lines(self, *, is_open: bool) -> Iterator[str]:
        """Yield the lines of the family with their line ends.

        Args:
            is_open: whether the format is OpenMetrics, in which the name of a family has no suffix.
        """
        sample = f"{self.name}_total"
        family = self.name if is_open else sample
        yield f"# HELP {family} {self.documentation}\n# TYPE {family} counter\n"
        for labels, value in zip(self._rules.texts, self._values, strict=True):
            yield f"{sample}{labels} {value}.0\n"


@dataclass(frozen=True, slots=True)
class RuleLabels:
    """The labels of rules, as keys and as text."""

    keys: Sequence[RuleCounter]
    texts: Sequence[str]

    @classmethod
    def of(cls, keys: Sequence[RuleCounter]) -> RuleLabels:
        """Format the labels of each key, once for all families."""
        return cls(keys, [_format_labels(key) for key in keys])


def labels_of(key: RuleCounter) -> dict[str, str]:
    """Return the labels of a rule."""
    return {
        "direction": key.direction.value,
        "interface": key.interface,
        "policy": key.policy.value,
        "rule_id": key.rule_id,
        "security_group_id": key.security_group_id,
    }


def page_type(accepted: str) -> str:
    """Return the content type of :func:`write_page` for a header ``Accept``."""
    return choose_encoder(accepted)[1]


def write_page(registry: CollectorRegistry, accepted: str) -> tuple[bytes, str]:
    """Return all metrics in the format that the client prefers, and their content type.

    Args:
        registry: of the metrics.
        accepted: the client's header ``Accept``; may be empty.
    """
    encode, content_type = choose_encoder(accepted)
    families = list(registry.collect())
    hits = [family for family in families if isinstance(family, RuleHits)]
    others = CollectorRegistry()
    others.register(_Collected(family for family in families if not isinstance(family, RuleHits)))
    is_open = content_type.startswith(_OPEN_METRICS)
    lines = "".join(line for family in hits for line in family.lines(is_open=is_open)).encode()
    page = encode(others)
    if is_open:
        return page.removesuffix(_END) + lines + _END, content_type
    return page + lines, content_type


class _Collected(Collector):
    """Return families that were collected before."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _format_labels(key: RuleCounter) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels_of(key).items())
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value
