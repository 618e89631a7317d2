"""Since when the table stands as it does, whatever is heard and whatever is missed."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.dataplane.generation import MISSED, GenerationTracker, RulesetChange


def change(generation: int, *, is_of_table: bool = False) -> RulesetChange:
    """Return somebody's change."""
    return RulesetChange(generation, 1, "nft", is_of_table=is_of_table)


def test_changes_of_others_tables_do_not_count() -> None:
    """As long as each was heard of, in turn."""
    tracker = GenerationTracker()
    assert tracker.changed_until(5) == 5
    tracker.notify(change(6))
    tracker.notify(change(7))
    assert tracker.changed_until(7) == 5
    tracker.notify(change(8, is_of_table=True))
    tracker.notify(change(9))
    assert tracker.changed_until(9) == 8


def test_numbers_go_round() -> None:
    """The one after the greatest is 1."""
    tracker = GenerationTracker()
    assert tracker.changed_until(0xFFFFFFFF) == 0xFFFFFFFF
    tracker.notify(change(1))
    assert tracker.changed_until(1) == 0xFFFFFFFF


def test_what_was_missed_may_have_been_ours() -> None:
    """Also what is told of after it."""
    tracker = GenerationTracker()
    tracker.changed_until(5)
    tracker.notify(MISSED)
    tracker.notify(change(6))
    assert tracker.changed_until(6) == 6
    tracker.notify(change(8))
    assert tracker.changed_until(8) == 8


class Ruleset:
    """A kernel that numbers states, and tells of some changes."""

    def __init__(self) -> None:
        """Start with a table that was just looked at."""
        self.number, self.content = 1, 0
        self.tracker = GenerationTracker()
        self.untold: list[RulesetChange] = []
        self.poll()

    def poll(self) -> None:
        """List the table."""
        self.seen = self.content
        self.tracker.change(self.number)
        self.seen_at = self.tracker.changed_until(self.number)

    def change(self, *, is_of_table: bool) -> None:
        """Let somebody change a table."""
        self.number += 1
        self.content += is_of_table
        self.untold.append(change(self.number, is_of_table=is_of_table))

    def tell(self) -> None:
        """Tell all that was not told yet."""
        while self.untold:
            self.tracker.notify(self.untold.pop(0))

    def ask(self) -> None:
        """Hold an answer that nothing has changed to what has."""
        if self.tracker.changed_until(self.number) == self.seen_at:
            assert self.seen == self.content


@given(st.lists(st.sampled_from(("ours", "other", "tell", "overrun", "lose", "look", "ask")), max_size=8))
def test_an_old_look_is_never_taken_for_new(events: list[str]) -> None:
    """Whatever is heard late or never, a number that stays means a table that stays."""
    ruleset = Ruleset()
    for event in events:
        match event:
            case "ours" | "other":
                ruleset.change(is_of_table=event == "ours")
            case "tell":
                ruleset.tell()
            case "overrun":
                ruleset.untold = [MISSED]
            case "lose":
                ruleset.untold = ruleset.untold[1:]
            case "look":
                ruleset.poll()
            case _:
                ruleset.ask()
    ruleset.tell()
    ruleset.ask()
