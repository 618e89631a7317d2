"""Documents are read from real files, as they were at one moment."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sgagent.core.errors import DocumentError, NoDocumentError, Severity, SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings import SignatureSettings
from sgagent.signatures import PublicKey
from sgagent.sources.files.reader import FileReading, is_document_name, read_document
from sgagent.sources.files.source import FileSource
from sgagent.sources.verified_parse import SignaturePolicy, VerifiedParser
from tests.patience import PATIENCE

GROUP = "version: 1\nsecurity_groups: [{security_group_id: %s, type: basic}]\n"


def source(path: Path, limits: Limits | None = None) -> FileSource:
    """Return a source with the default limits unless others are given."""
    return FileSource(path, limits or Limits())


def group_ids(fetched: FileSource) -> list[str]:
    """Return the ids of the groups that a source delivers."""
    return [group.security_group_id for group in fetched.fetch().snapshot.security_groups]


def codes(error: DocumentError) -> list[str]:
    """Return the codes of what was wrong."""
    return [problem.code for problem in error.problems]


def test_a_file_is_read(tmp_path: Path) -> None:
    """One file is the whole policy, whatever its name."""
    (tmp_path / "policy").write_text(GROUP % "sg-web")
    assert group_ids(source(tmp_path / "policy")) == ["sg-web"]


def test_a_directory_is_read_as_a_whole(tmp_path: Path) -> None:
    """Its documents are one policy, also where a system that knows no lower case wrote their names."""
    (tmp_path / "web.yaml").write_text(GROUP % "sg-web")
    (tmp_path / "APP.YML").write_text(GROUP % "sg-app")
    (tmp_path / "db.Json").write_text(
        '{"version": 1, "security_groups": [{"security_group_id": "sg-db", "type": "basic"}]}'
    )
    assert group_ids(source(tmp_path)) == ["sg-app", "sg-db", "sg-web"]


def test_documents_that_stayed_as_they_were_are_not_parsed_again(tmp_path: Path) -> None:
    """The same content is the same delivery, also in a file that was written anew; other content is not."""
    document = tmp_path / "web.yaml"
    document.write_text(GROUP % "sg-web")
    fetched = source(tmp_path)
    first = fetched.fetch()
    document.unlink()
    document.write_text(GROUP % "sg-web")
    assert fetched.fetch() is first
    document.write_text(GROUP % "sg-app")
    assert group_ids(fetched) == ["sg-app"]


def test_what_was_delivered_is_handed_on_in_the_order_of_names(tmp_path: Path) -> None:
    """The bytes are kept beside the snapshot, to be read again after a restart."""
    for name in ("b.yaml", "a.yaml"):
        (tmp_path / name).write_text(GROUP % f"sg-{name[0]}")
    documents = source(tmp_path).fetch().documents
    assert [document.name for document in documents] == [f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"]
    assert documents[0].content == (GROUP % "sg-a").encode()


@pytest.mark.parametrize(
    ("name", "expected"),
    (
        ("web.yaml", True),
        ("web.yml", True),
        ("web.json", True),
        ("web tier.yaml", True),
        ("WEB.YAML", True),
        ("web.YML", True),
        ("web.Json", True),
        ("web.YAML~", False),
        (".WEB.YAML", False),
        (".web.yaml", False),
        (".#web.yaml", False),
        ("#web.yaml#", False),
        ("#web.yaml", False),
        ("web.yaml~", False),
        (".web.yaml.swp", False),
        ("web.yaml.bak", False),
        ("..data", False),
        ("README", False),
        ("yaml", False),
    ),
)
def test_only_documents_of_a_directory_are_read(name: str, *, expected: bool) -> None:
    """What editors and version control leave beside them is not."""
    assert is_document_name(name) is expected


def test_directories_in_the_directory_are_not_read(tmp_path: Path) -> None:
    """Each that holds documents is named once, unless hidden; the next fetch has nothing new to say."""
    (tmp_path / "web.yaml").write_text(GROUP % "sg-web")
    for name in ("old", ".git", "..data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.yaml").write_text(GROUP % "sg-app")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "README").touch()
    (tmp_path / "link").symlink_to("old")
    fetched = source(tmp_path)
    first = fetched.fetch()
    assert [group.security_group_id for group in first.snapshot.security_groups] == ["sg-web"]
    assert [(problem.code, problem.origin.file) for problem in first.problems] == [
        ("directory_skipped", f"{tmp_path}/link"),
        ("directory_skipped", f"{tmp_path}/old"),
    ]
    assert all(problem.severity is Severity.WARNING for problem in first.problems)
    assert f"(move them to {tmp_path}, or hide the directory by a dot in front of its name)" in str(
        first.problems[1]
    )
    assert fetched.fetch() is first
    (tmp_path / "old").rename(tmp_path / ".old")
    (tmp_path / "link").unlink()
    assert fetched.fetch().problems == ()


def test_directories_whose_documents_are_read_through_links_are_not_skipped(tmp_path: Path) -> None:
    """A link in the directory leads to the release that counts; one document more of it is named again."""
    release = tmp_path / "groups.d" / "release-7"
    release.mkdir(parents=True)
    (release / "web.yaml").write_text(GROUP % "sg-web")
    (release.parent / "current").symlink_to("release-7")
    (release.parent / "here").symlink_to(".")
    (release.parent / "web.yaml").symlink_to("current/web.yaml")
    fetched = source(release.parent)
    assert fetched.fetch().problems == ()
    (release / "app.yaml").write_text(GROUP % "sg-app")
    assert [problem.origin.file for problem in fetched.fetch().problems] == [
        f"{release.parent}/current",
        f"{release.parent}/release-7",
    ]


def test_a_link_to_itself_hides_no_directory_that_is_skipped(tmp_path: Path) -> None:
    """The kernel can't tell what such a link is; what stands beside it is named all the same."""
    (tmp_path / "web.yaml").write_text(GROUP % "sg-web")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "app.yaml").write_text(GROUP % "sg-app")
    assert [problem.origin.file for problem in source(tmp_path).fetch().problems] == [f"{tmp_path}/old"]


def test_documents_behind_links_are_read(tmp_path: Path) -> None:
    """A directory as Kubernetes mounts it holds links through a hidden link."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "web.yaml").write_text(GROUP % "sg-web")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")
    assert group_ids(source(tmp_path)) == ["sg-web"]


@pytest.mark.parametrize("has_keys", (False, True), ids=["without keys", "with keys"])
def test_a_path_that_the_kernel_refuses_is_unavailable(tmp_path: Path, *, has_keys: bool) -> None:
    """A refusal other than "no such file" is a fault of the source too, not of the agent."""
    policy = SignaturePolicy(SignatureSettings(public_keys=(PublicKey(bytes(32)),) if has_keys else ()))
    refused = FileSource(tmp_path / ("a" * 300), Limits(), VerifiedParser(Limits(), policy))
    with pytest.raises(SourceUnavailableError, match="file name too long"):
        refused.fetch()


def test_an_emptied_directory_is_unavailable(tmp_path: Path) -> None:
    """The last file that is removed takes no policy with it: what was enforced stays."""
    (tmp_path / "README").touch()
    with pytest.raises(NoDocumentError, match="holds no document"):
        source(tmp_path).fetch()


def test_links_to_nowhere_among_documents_are_refused(tmp_path: Path) -> None:
    """Documents that are announced and missing are not left out; all are named at once."""
    (tmp_path / "app.yaml").write_text(GROUP % "sg-app")
    make_pipe(tmp_path / "pipe.yaml")
    for name in ("shop.yaml", "web.yaml"):
        (tmp_path / name).symlink_to("gone.yaml")
    with pytest.raises(DocumentError) as caught:
        source(tmp_path).fetch()
    assert codes(caught.value) == ["not_a_file", "broken_link", "broken_link"]
    assert caught.value.problems[2].origin.file == f"{tmp_path}/web.yaml"


def test_a_path_that_is_a_link_to_nowhere_is_unavailable(tmp_path: Path) -> None:
    """What stands behind it may come back, as a mount does."""
    (tmp_path / "web.yaml").symlink_to("gone.yaml")
    with pytest.raises(SourceUnavailableError, match=r"web\.yaml: the symbolic link leads nowhere"):
        source(tmp_path / "web.yaml").fetch()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_unavailable(tmp_path: Path) -> None:
    """The message names the path and the reason."""
    (tmp_path / "web.yaml").write_text(GROUP % "sg-web")
    (tmp_path / "web.yaml").chmod(0)
    with pytest.raises(SourceUnavailableError, match=r"web\.yaml: permission denied"):
        source(tmp_path).fetch()


def make_pipe(path: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(path)


def make_link_to_device(path: Path) -> None:
    """Make a link to a device that never ends."""
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", (make_pipe, make_link_to_device, Path.mkdir))
def test_what_could_block_or_never_end_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe, a device or a directory in a document's place is an error that names it, at once."""
    (tmp_path / "app.yaml").write_text(GROUP % "sg-app")
    make(tmp_path / "web.yaml")
    with pytest.raises(DocumentError) as caught:
        source(tmp_path).fetch()
    assert codes(caught.value) == ["not_a_file"]
    assert caught.value.problems[0].origin.file == f"{tmp_path}/web.yaml"


def test_all_that_are_no_files_are_named_at_once(tmp_path: Path) -> None:
    """One round of mending is enough."""
    make_pipe(tmp_path / "a.yaml")
    make_pipe(tmp_path / "b.yaml")
    with pytest.raises(DocumentError) as caught:
        source(tmp_path).fetch()
    assert codes(caught.value) == ["not_a_file", "not_a_file"]


def test_a_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    """A sparse file of a tebibyte is refused without being read."""
    with (tmp_path / "web.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DocumentError) as caught:
        source(tmp_path, Limits(document_bytes=1000)).fetch()
    assert codes(caught.value) == ["too_large"]


def test_a_file_as_large_as_its_limit_is_read(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    content = GROUP % "sg-web"
    (tmp_path / "web.yaml").write_text(content)
    assert group_ids(source(tmp_path, Limits(document_bytes=len(content)))) == ["sg-web"]


def test_many_files_are_bounded_together(tmp_path: Path) -> None:
    """A directory can't hold more than a few documents of the largest size."""
    for number in range(6):
        (tmp_path / f"{number}.yaml").write_text("#" * 1000)
    with pytest.raises(DocumentError) as caught:
        source(tmp_path, Limits(document_bytes=1000)).fetch()
    assert codes(caught.value) == ["too_large"]
    assert caught.value.problems[0].origin.file == str(tmp_path)


def test_errors_of_form_are_raised(tmp_path: Path) -> None:
    """They name the file as the user gave it."""
    (tmp_path / "web.yaml").write_text("version: 1\nnonsense: true\n")
    with pytest.raises(DocumentError) as caught:
        source(tmp_path).fetch()
    assert caught.value.problems[0].origin.file == f"{tmp_path}/web.yaml"


def test_only_what_changed_meanwhile_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are taken as they were at one moment, though one of them changes whenever it has been read."""
    names, changes = ("app.yaml", "db.yaml", "web.yaml"), iter(range(1, 8))
    for name in names:
        (tmp_path / name).write_text("# 0\nversion: 1\n")
    read: list[str] = []

    def read_and_change(path: Path, limit: int) -> FileReading:
        reading = read_document(path, limit)
        read.append(path.name)
        if path.name == "db.yaml" and (change := next(changes, None)) is not None:
            (tmp_path / ".new").write_text(f"# {change}\nversion: 1\n")
            (tmp_path / ".new").rename(path)
        return reading

    monkeypatch.setattr("sgagent.sources.files.reader.read_document", read_and_change)
    documents = FileSource(tmp_path, Limits()).read_documents()
    assert [file.content[:3] for file in documents] == [b"# 0", b"# 7", b"# 0"]
    assert {name: read.count(name) for name in names} == {"app.yaml": 1, "db.yaml": 8, "web.yaml": 1}


def test_a_reader_never_sees_half_of_a_swap(tmp_path: Path) -> None:
    """While a whole set of documents is swapped again and again, what is read is of one set."""
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        for name in "abcdefgh":
            (tmp_path / release / f"{name}.yaml").write_text(GROUP % f"sg-{name}{release}")
    (tmp_path / "current").symlink_to("1")
    ended = threading.Event()

    def swap() -> None:
        releases = 0
        while not ended.wait(0.002):
            releases += 1
            (tmp_path / "next").symlink_to(str(releases % 2 + 1))
            (tmp_path / "next").rename(tmp_path / "current")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(50):
            with contextlib.suppress(SourceUnavailableError):  # a slow machine may never see them at rest
                assert len({group_id[-1] for group_id in group_ids(source(tmp_path / "current"))}) == 1
    finally:
        ended.set()
        swapping.join()


def test_a_relative_path_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages show what the user wrote, and the reason."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceUnavailableError, match=r"^groups\.d: no such file or directory"):
        source(Path("groups.d")).fetch()


def test_a_change_of_a_relative_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source wakes who watches it, from a path that is not there yet."""
    monkeypatch.chdir(tmp_path)
    relative, changed = source(Path("groups.d")), threading.Event()
    with relative.watch(changed.set):
        (tmp_path / "whole").mkdir()
        (tmp_path / "whole" / "web.yaml").write_text(GROUP % "sg-web")
        (tmp_path / "whole").rename(tmp_path / "groups.d")
        assert changed.wait(2.0 * PATIENCE)
    assert group_ids(relative) == ["sg-web"]


def test_an_absolute_path_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may be started by hand in a directory that is removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    (tmp_path / "web.yaml").write_text("version: 1\n")
    source = FileSource(tmp_path, Limits())
    with source.watch(lambda: None):
        assert source.fetch().documents
