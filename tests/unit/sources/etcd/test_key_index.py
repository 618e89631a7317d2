"""Keys, sorted into folders."""

from __future__ import annotations

from dataclasses import replace

from sgagent.sources.etcd.key_layout import KeyIndex, KeyLayout
from sgagent.sources.etcd.messages import KeyValue

LAYOUT = KeyLayout("/sgagent")


def values(*names: str, revision: int = 1) -> dict[str, KeyValue]:
    """Return keys by their names."""
    keys = [LAYOUT.root + name for name in names]
    return {key: KeyValue(key=key, mod_revision=revision) for key in keys}


def names_in(folders: KeyIndex, given: dict[str, KeyValue]) -> dict[tuple[str, ...], list[str]]:
    """Return the names of what is in each folder."""
    sorted_now = folders.sort(given).items()
    return {name: [LAYOUT.relative(stored.item.key) for stored in folder] for name, folder in sorted_now}


def test_objects_are_sorted_by_kind_and_members_by_group() -> None:
    """In the order of keys, whatever the order in which they were read."""
    given = values("members/sg-2/a", "groups/sg-2", "members/sg-1/b", "groups/sg-1", "members/sg-1/a")
    assert names_in(KeyIndex(LAYOUT), given) == {
        ("groups",): ["groups/sg-1", "groups/sg-2"],
        ("members", "sg-1"): ["members/sg-1/a", "members/sg-1/b"],
        ("members", "sg-2"): ["members/sg-2/a"],
    }


def test_a_folder_in_which_nothing_changed_is_the_very_same() -> None:
    """Though a key in another came, was written anew, or went."""
    folders = KeyIndex(LAYOUT)
    given = values("groups/sg-1", "members/sg-1/a", "members/sg-2/a")
    before = dict(folders.sort(given))
    given |= values("members/sg-2/b")
    assert folders.sort(given)[("members", "sg-1")] is before[("members", "sg-1")]
    given |= values("members/sg-2/a", revision=2)
    assert folders.sort(given)[("members", "sg-1")] is before[("members", "sg-1")]
    for name in ("members/sg-2/a", "members/sg-2/b"):
        del given[LAYOUT.root + name]
    assert dict(folders.sort(given)) == {
        name: folder for name, folder in before.items() if name != ("members", "sg-2")
    }
    assert folders.sort(given)[("groups",)] is before[("groups",)]


def test_what_was_only_read_again_is_the_very_same() -> None:
    """As after a connection that was lost: whoever took it in before need not do so again."""
    folders = KeyIndex(LAYOUT)
    given = values("groups/sg-1", "groups/sg-2", "members/sg-1/a")
    before = dict(folders.sort(given))
    again = {key: replace(item) for key, item in given.items()}
    assert all(folder is before[name] for name, folder in folders.sort(again).items())
    again |= values("groups/sg-2", revision=2)
    (first, second) = folders.sort(again)[("groups",)]
    assert first is before[("groups",)][0]
    assert second.item.mod_revision == 2
