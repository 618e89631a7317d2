"""What decides where a path leads."""

from __future__ import annotations

from pathlib import Path

from sgagent.sources.files.inotify import PathStep, follow


def looked_up(path: Path, below: Path) -> list[tuple[str, str]]:
    """Return the look-ups below a directory, with the directory's path left out."""
    return [
        (str(look_up.directory.relative_to(below)), look_up.name)
        for look_up in follow(path).look_ups
        if look_up.directory.is_relative_to(below)
    ]


def test_every_component_is_looked_up_from_the_root(tmp_path: Path) -> None:
    """A directory that is renamed anywhere on the way leads elsewhere."""
    (tmp_path / "web.yaml").touch()
    way = follow(tmp_path / "web.yaml")
    assert way.look_ups[0] == PathStep(Path("/"), tmp_path.parts[1])
    assert way.look_ups[-1] == PathStep(tmp_path, "web.yaml")
    assert way.target == tmp_path / "web.yaml"


def test_a_way_ends_at_the_first_name_that_is_missing(tmp_path: Path) -> None:
    """The look-up that failed is the one to watch."""
    way = follow(tmp_path / "later" / "web.yaml")
    assert way.look_ups[-1] == PathStep(tmp_path, "later")
    assert way.target is None


def test_a_way_does_not_lead_through_a_file(tmp_path: Path) -> None:
    """A file in the place of a directory ends the way."""
    (tmp_path / "file").touch()
    assert follow(tmp_path / "file" / "web.yaml").target is None


def test_links_are_followed_and_watched(tmp_path: Path) -> None:
    """Both the link's own name and those that its target leads through are looked up."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "1" / "web.yaml").touch()
    (tmp_path / "current").symlink_to("releases/1")
    assert looked_up(tmp_path / "current" / "web.yaml", tmp_path) == [
        (".", "current"),
        (".", "releases"),
        ("releases", "1"),
        ("releases/1", "web.yaml"),
    ]


def test_an_absolute_link_starts_at_the_root_again(tmp_path: Path) -> None:
    """The way to the target is walked as a whole."""
    (tmp_path / "web.yaml").touch()
    (tmp_path / "link").symlink_to(tmp_path / "web.yaml")
    way = follow(tmp_path / "link")
    assert way.target == tmp_path / "web.yaml"
    assert way.look_ups.count(PathStep(Path("/"), tmp_path.parts[1])) == 2


def test_a_parent_is_that_of_the_links_target(tmp_path: Path) -> None:
    """Two dots behind a link lead to where the target lies, as they do in the kernel."""
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/inner")
    assert follow(tmp_path / "link" / ".." / "web.yaml").look_ups[-1] == PathStep(
        tmp_path / "real", "web.yaml"
    )


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    """As with the kernel, only so many links are followed."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert follow(tmp_path / "a").target is None
