"""Write metrics as a page: what there is thousands of by ourselves, the rest by the library.

The library takes an object, a sorted list and a dozen replacements for each sample: a tenth of a second for
ten thousand rules, in which the loop that enforces changes would have to share the interpreter.
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
        """Take the values in the order of the rules."""
        self.name = name
        self.documentation = documentation
        self.type = "counter"
        self.unit = ""
        self._rules = rules
        self._values = values

    @property
    def samples(self) -> list[Sample]:  # type: ignore[override]  # made for who asks: no scrape
        """Return the samples as the library has them."""
        name = f"{self.name}_total"
        return [
            Sample(name, labels_of(key), value)
            for key, value in zip(self._rules.keys, self._values, strict=True)
        ]

    def lines(self, *, is_open: bool) -> Iterator[str]:
        """Yield the lines of the family, each with its end.

        Args:
            is_open: whether they are for OpenMetrics, where a family lacks the ending of its samples.
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
        """Write the labels of each key, once for all families."""
        return cls(keys, [_written(key) for key in keys])


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
    """Return the type of the content that :func:`write_page` writes for a header ``Accept``."""
    return choose_encoder(accepted)[1]


def write_page(registry: CollectorRegistry, accepted: str) -> tuple[bytes, str]:
    """Return a page in the format that its reader prefers, and the type of its content.

    Args:
        registry: of what is written.
        accepted: the reader's header ``Accept``; may be empty.
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
    """Families that were collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _written(key: RuleCounter) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels_of(key).items())
    return f"{{{pairs}}}"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value
