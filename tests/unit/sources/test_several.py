"""The union of several sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.agent.definitions import Fetched
from sgagent.core.errors import DocumentError, SourceUnavailableError, UsageError
from sgagent.documents import Limits
from sgagent.ports import DeliveredPart
from sgagent.settings import parse_settings
from sgagent.signatures import Signed
from sgagent.sources.factory import make_source
from sgagent.sources.files.source import FileSource
from sgagent.sources.union import UnionSource
from sgagent.sources.verified_parse import VerifiedParser, encode_signature, signature_file
from tests.fakes.clock import FakeClock
from tests.fakes.source import FakeSource
from tests.signing import KEY, signature_of

A = "version: 1\nsecurity_groups: [{security_group_id: sg-a}]\n"
B = "version: 1\nsecurity_groups: [{security_group_id: sg-b}]\n"
NOT_THERE = "the fake source: nothing was written"


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


def test_the_path_of_a_file_that_is_away_stands_once(tmp_path: Path) -> None:
    """In the error, and in the warning."""
    (tmp_path / "a.yaml").write_text(A)
    path = tmp_path / "b.yaml"
    path.write_text(B)
    named = [(f"file {one}", FileSource(one, Limits())) for one in (tmp_path / "a.yaml", path)]
    source = UnionSource(named, VerifiedParser(Limits()))
    source.fetch()
    path.unlink()
    fetched = Fetched().again(source)
    assert fetched.source_error == f"file {path}: no such file or directory"
    assert fetched.newest
    assert str(fetched.newest.problems[0]).count(str(path)) == 1


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
    fetched = Fetched().again(source)
    assert (fetched.newest, fetched.source_error) == (delivery, f"source 1: {NOT_THERE}")
    other.write(B)
    assert fetched.again(source).source_error is None


def test_a_source_that_is_refused_keeps_its_part() -> None:
    """What the others deliver is followed, and the errors and the state of the source tell why."""
    one, other = FakeSource(A), FakeSource(B)
    source = union(one, other)
    assert source.fetch().refused == ()
    other.write("version: 1\ngroups: []\n")
    one.write(A.replace("sg-a", "sg-c"))
    delivery = source.fetch()
    assert sorted(delivery.snapshot.group_by_id) == ["sg-b", "sg-c"]
    assert [problem.code for problem in delivery.refused] == ["unknown_field"]
    assert [(part.fault or "")[:20] for part in delivery.parts] == ["", "refused: error: fake"]
    assert source.fetch() is delivery
    other.write(B.replace("sg-b", "sg-d"))
    mended = source.fetch()
    assert (sorted(mended.snapshot.group_by_id), mended.refused) == (["sg-c", "sg-d"], ())


@pytest.mark.parametrize(
    ("other", "error"),
    ((FakeSource("version: 1\ngroups: []\n"), DocumentError), (FakeSource(), SourceUnavailableError)),
    ids=("refused", "away"),
)
def test_without_a_first_delivery_of_each_there_is_none(other: FakeSource, error: type[Exception]) -> None:
    """Groups of the missing part would be unknown to the others."""
    with pytest.raises(error):
        union(FakeSource(A), other).fetch()


def test_each_source_has_a_state_of_its_own() -> None:
    """When it delivered something new last, by whom that is signed, and why it can't be reached."""
    one, other, clock = FakeSource(A), FakeSource(B), FakeClock(100.0)
    other.signed = Signed(serial=7, digest="d", key_id="k", expires_at=None)
    source = UnionSource([("one", one), ("other", other)], VerifiedParser(Limits()), clock.now)
    first = source.fetch()
    assert first.parts == (
        DeliveredPart(place="one", delivered_at=100.0),
        DeliveredPart(place="other", delivered_at=100.0, signed=other.signed),
    )
    clock.pass_seconds(60)
    assert source.fetch() is first
    one.write(A.replace("sg-a", "sg-c"))
    other.remove()
    changed = source.fetch().parts
    assert [part.delivered_at for part in changed] == [160.0, 100.0]
    assert changed[0].fault is None
    assert "nothing was written" in (changed[1].fault or "")
    assert changed[1].signed == other.signed
    other.write(B)
    assert [part.fault for part in source.fetch().parts] == [None, None]


def test_each_source_has_a_signature_of_its_own(tmp_path: Path) -> None:
    """A serial counts for its source: an older one of the other is none; a replay is refused."""
    state = tmp_path / "state"
    state.mkdir()
    tables = f'[state]\ndirectory = "{state}"\n[signature]\npublic_keys = ["{KEY.public}"]\n'
    for name, text, serial in (("a", A, 9), ("b", B, 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "groups.yaml").write_text(text)
        signature = signature_of({"groups.yaml": text.encode()}, serial=serial)
        (tmp_path / name / "sgagent.sig").write_bytes(signature)
        tables += f'[[source]]\npath = "{tmp_path}/{name}"\n'
    settings = parse_settings(tables, "sgagent.toml")
    delivery = make_source(settings).fetch()
    assert [part.signed.serial for part in delivery.parts if part.signed] == [9, 2]
    (part,) = (part for part in delivery.parts if part.place.endswith("/b"))
    newer = Signed(serial=3, digest="d", key_id="k", expires_at=None)
    signature_file(state, part.place).write_bytes(encode_signature(newer))
    with pytest.raises(DocumentError, match="older than 3"):
        make_source(settings).fetch()


def test_each_source_has_warnings_of_its_own(tmp_path: Path) -> None:
    """As if it were the only one, so that strict agents refuse what they would refuse from it."""
    tables = f'[signature]\npublic_keys = ["{KEY.public}"]\nrequired = false\n'
    for name, text in (("a", A), ("b", B)):
        (tmp_path / name / "within").mkdir(parents=True)
        (tmp_path / name / "within" / "more.yaml").write_text(text)
        (tmp_path / name / "groups.yaml").write_text(text)
        tables += f'[[source]]\npath = "{tmp_path}/{name}"\n'
    delivery = make_source(parse_settings(tables, "sgagent.toml")).fetch()
    assert sorted(problem.code for problem in delivery.problems) == [
        *("directory_skipped", "directory_skipped"),
        *("signature_missing", "signature_missing"),
    ]


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
    ),
)
def test_wrong_configurations(text: str, message: str) -> None:
    """Each is told."""
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_settings(text, "sgagent.toml")
