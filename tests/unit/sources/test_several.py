"""The union of several sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.errors import DocumentError, SourceUnavailableError, UsageError
from sgagent.documents import Limits
from sgagent.settings import parse_settings
from sgagent.sources.factory import make_source
from sgagent.sources.several.source import UnionSource
from sgagent.sources.verified_parse import VerifiedParser
from tests.fakes.source import FakeSource

A = "version: 1\nsecurity_groups: [{security_group_id: sg-a}]\n"
B = "version: 1\nsecurity_groups: [{security_group_id: sg-b}]\n"


def union(*sources: FakeSource) -> UnionSource:
    """Return the union of sources that are called by their numbers."""
    named = [(f"source {number}", source) for number, source in enumerate(sources)]
    return UnionSource(named, VerifiedParser(Limits()))


def test_the_snapshot_is_the_union() -> None:
    """While nothing changes it is the identical object."""
    source = union(FakeSource(A), FakeSource(B))
    delivery = source.fetch()
    assert sorted(delivery.snapshot.group_by_id) == ["sg-a", "sg-b"]
    assert source.fetch() is delivery


def test_an_id_of_two_sources_is_an_error_that_names_both() -> None:
    """By their documents."""
    with pytest.raises(DocumentError) as caught:
        union(FakeSource(A), FakeSource(A)).fetch()
    (problem,) = caught.value.problems
    assert problem.code == "duplicate_id"
    assert "source 1: fake.yaml" in str(problem)
    assert "used by fake.yaml" in str(problem)


def test_a_source_that_is_away_keeps_its_part() -> None:
    """What the others deliver is followed all the same."""
    one, other = FakeSource(A), FakeSource(B)
    source = union(one, other)
    source.fetch()
    other.remove()
    one.write(A.replace("sg-a", "sg-c"))
    delivery = source.fetch()
    assert sorted(delivery.snapshot.group_by_id) == ["sg-b", "sg-c"]
    assert [problem.code for problem in delivery.problems] == ["source_away"]


def test_without_a_first_delivery_of_each_there_is_none() -> None:
    """Groups of the missing part would be unknown to the others."""
    with pytest.raises(SourceUnavailableError):
        union(FakeSource(A), FakeSource()).fetch()


def test_a_change_of_any_source_wakes() -> None:
    """Until the watch ends."""
    one, other = FakeSource(A), FakeSource(B)
    woken: list[None] = []
    with union(one, other).watch(lambda: woken.append(None)):
        one.write(A)
        other.write(B)
    other.write(B)
    assert len(woken) == 2


def test_the_configuration_makes_it(tmp_path: Path) -> None:
    """Two directories; one alone is that source."""
    for name, text in (("a", A), ("b", B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "groups.yaml").write_text(text)
    tables = [f'[[source]]\npath = "{tmp_path}/{name}"\n' for name in "ab"]
    both = parse_settings("".join(tables), "sgagent.toml")
    assert sorted(make_source(both).fetch().snapshot.group_by_id) == ["sg-a", "sg-b"]
    assert parse_settings(tables[0], "t") == parse_settings(tables[0].replace("[[source]]", "[source]"), "t")


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ('[[source]]\npath = "/a"\n[[source]]\npath = "/a"\n', "given twice"),
        ("source = []", "empty"),
        ('[[source]]\n[[source]]\ntype = "https"\n', "source[1].url"),
        (
            '[[source]]\n[[source]]\npath = "/b"\n[signature]\npublic_keys = []\n',
            "signatures need one source",
        ),
    ),
)
def test_wrong_configurations(text: str, message: str) -> None:
    """Each is told."""
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_settings(text, "sgagent.toml")
