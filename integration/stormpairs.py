"""List pairs of policies that agree about some packets, for each kind of element that the compiler emits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from integration.pairs import Pair, Side

_LIST = {"pl-bad": ("bad1", "bad2", "bad3")}
_BROAD = ("accept 2 tcp 82 any", "accept 2 udp 82 any")
_DROP_LIST = ("drop 1 tcp 82 pl-bad", "drop 1 udp 82 pl-bad")
_ACCEPT_LIST = ("accept 1 tcp 82 pl-bad", "accept 1 udp 82 pl-bad")
_DROP_NETWORK = ("drop 1 tcp 82 bad1", "drop 1 udp 82 bad1")
_ACCEPT_NETWORK = ("accept 1 tcp 82 bad1", "accept 1 udp 82 bad1")
_UNRELATED = ("accept 5 udp 9000 good",)
_FOURTEEN = tuple(f"accept 5 tcp {9100 + 2 * number} h{1 + number}" for number in range(14))
_SIXTY_RANGES = tuple(f"accept 3 tcp {2000 + 10 * place}/{2004 + 10 * place} pl-bad" for place in range(60))
_BAD = ("tcp bad1 82", "udp bad2 82")
_ONE_BAD = ("tcp bad1 82", "udp bad1 82")
_GOOD = ("tcp good 82", "udp good 82")


def _ranges(first: int, count: int, peer: str, protocol: str = "tcp") -> tuple[str, ...]:
    """Return rules for so many ranges of ports."""
    ports = range(first, first + 10 * count, 10)
    return tuple(f"accept 1 {protocol} {port}/{port + 4} {peer}" for port in ports)


def _source_ports(port: int, count: int, peer: str) -> tuple[str, ...]:
    """Return rules that accept and drop UDP by ranges of source ports in turn, and 20000 to 29999."""
    rules = [
        f"{('drop', 'accept')[number % 2]} 1 udp {port} {peer} sport {1000 * number}/{1000 * number + 999}"
        for number in range(1, count)
    ]
    return (*rules, f"accept 1 udp {port} {peer} sport 20000/29999")


def _near_ends(port: int, numbers: range, peer: str) -> tuple[str, ...]:
    """Return rules that accept UDP to several networks of the near end."""
    return tuple(f"accept 1 udp {port} {peer} local near-{number}" for number in numbers)


_OF_PAIRS = {"forbidden", "allowed", "differing", "is_logged"}


def _pair(name: str, about: str, before: Side, *more: str, **given: Any) -> Pair:  # noqa: ANN401 - of fields
    """Return a pair whose second side has more rules, or other values in the fields of a side."""
    of_pair = {field: given.pop(field) for field in _OF_PAIRS & given.keys()}
    after = replace(before, **{"rules": (*before.rules, *more), **given})
    return Pair(name=name, about=about, before=before, after=after, **of_pair)


_DROP_BEFORE = Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST)
_DROP_AFTER = Side(rules=(*_DROP_LIST, *_BROAD, *_UNRELATED), lists=_LIST)

DROP_ON_A_LIST = Pair(
    name="drop_on_a_list",
    about="drop on a prefix list of three networks inside a broad accept; one unrelated rule more",
    before=_DROP_BEFORE,
    after=_DROP_AFTER,
    forbidden=_BAD,
    allowed=_GOOD,
    differing=("udp good 9000",),
)

OF_LISTS = (
    DROP_ON_A_LIST,
    _pair(
        "accept_for_a_list",
        "accept for a prefix list only; one unrelated rule more",
        Side(rules=_ACCEPT_LIST, lists=_LIST),
        *_UNRELATED,
        forbidden=_GOOD,
        allowed=_BAD,
        differing=("udp good 9000",),
    ),
    _pair(
        "list_gets_an_entry",
        "the list of a drop rule gets one entry more",
        _DROP_BEFORE,
        lists={"pl-bad": ("bad1", "bad2", "bad3", "bad4")},
        forbidden=_BAD,
        allowed=_GOOD,
        differing=("udp bad4 82",),
    ),
    _pair(
        "accepting_list_loses_an_entry",
        "the list of an accept rule loses one entry",
        Side(rules=_ACCEPT_LIST, lists={"pl-bad": ("bad1", "bad2", "bad3", "bad4")}),
        lists=_LIST,
        forbidden=_GOOD,
        allowed=_BAD,
        differing=("udp bad4 82",),
    ),
    _pair(
        "entry_changes_lists",
        "a network moves from one dropping list to another",
        Side(
            rules=("drop 1 udp 82 pl-bad", "drop 1 udp 82 pl-worse", *_BROAD),
            lists={"pl-bad": ("bad1", "bad3"), "pl-worse": ("bad2", "bad4")},
        ),
        lists={"pl-bad": ("bad3",), "pl-worse": ("bad1", "bad2", "bad4")},
        forbidden=("udp bad1 82", "udp bad2 82"),
        allowed=_GOOD,
    ),
    _pair(
        "several_objects",
        "a drop rule with three objects; one unrelated rule more",
        Side(rules=("drop 1 udp 82 bad1+bad2+bad3", *_BROAD)),
        *_UNRELATED,
        forbidden=("udp bad1 82", "udp bad3 82"),
        allowed=_GOOD,
        differing=("udp good 9000",),
    ),
    _pair(
        "protocols_apart",
        "a list that asks for TCP and UDP once each, in chains beside; one unrelated rule more",
        Side(
            rules=("drop 1 tcp 82,84,86 pl-bad", "drop 1 udp 82,84,86 pl-bad", "accept 2 all any"),
            lists=_LIST,
        ),
        "drop 1 udp 9000 good",
        forbidden=("tcp bad1 84", "udp bad2 86"),
        allowed=_GOOD,
        differing=("udp good 9000",),
    ),
    _pair(
        "ping_from_a_list",
        "ping from a prefix list only; one unrelated rule more",
        Side(rules=("accept 1 ping pl-bad",), lists=_LIST),
        *_UNRELATED,
        forbidden=("ping good",),
        allowed=("ping bad1", "ping bad3"),
        differing=("udp good 9000",),
    ),
    _pair(
        "range_of_ports_in_a_list",
        "a drop rule's range of ports gets wider in a list",
        Side(rules=("drop 1 udp 80/89 pl-bad", "accept 2 udp 1/1024 any"), lists=_LIST),
        rules=("drop 1 udp 80/99 pl-bad", "accept 2 udp 1/1024 any"),
        forbidden=("udp bad1 82", "udp bad3 89"),
        allowed=("udp bad1 79", "udp good 82"),
        differing=("udp bad2 95",),
    ),
)

OF_SHAPES = (
    _pair(
        "list_to_classes_with_a_drop",
        "drop on one network; fourteen rules more turn the list into classes",
        Side(rules=(*_DROP_NETWORK, *_BROAD)),
        *_FOURTEEN,
        forbidden=_ONE_BAD,
        allowed=_GOOD,
    ),
    _pair(
        "list_to_classes_with_an_accept",
        "accept on one network only; fourteen rules more turn the list into classes",
        Side(rules=_ACCEPT_NETWORK),
        *_FOURTEEN,
        forbidden=_GOOD,
        allowed=_ONE_BAD,
    ),
    _pair(
        "sixty_ranges_come",
        "a list of networks; sixty ranges of ports more bring a map of ranges",
        Side(rules=(*_DROP_LIST, *_BROAD, "accept 1 tcp 84 pl-bad"), lists=_LIST),
        *_SIXTY_RANGES,
        forbidden=_BAD,
        allowed=(*_GOOD, "tcp bad1 84"),
    ),
)

_CLASSES = (*_DROP_NETWORK, *_BROAD, *_FOURTEEN)

OF_CLASSES = (
    _pair(
        "map_of_hosts",
        "a map of hosts: one host more; another host is dropped all the time",
        Side(rules=(*_BROAD, *_FOURTEEN, "drop 1 udp 82 h50", "accept 1 udp 84 h51")),
        "drop 1 udp 82 h60",
        forbidden=("udp h50 82",),
        allowed=("udp h51 84", "udp good 82"),
        differing=("udp h60 82",),
    ),
    _pair(
        "host_changes_classes",
        "a host that is dropped moves to another class of the map of hosts",
        Side(rules=(*_BROAD, *_FOURTEEN, "drop 1 udp 82 h50", "accept 1 udp 84 h51")),
        "accept 5 udp 86 h50+h51",
        forbidden=("udp h50 82",),
        allowed=("udp h51 84", "udp good 82"),
        differing=("udp h51 86",),
    ),
    _pair(
        "network_is_cut",
        "a map of networks: a rule for half of a dropped network cuts its element in two",
        Side(rules=_CLASSES),
        "accept 3 udp 7000 bad1-half",
        forbidden=_ONE_BAD,
        allowed=_GOOD,
        differing=("udp bad1-half 7000",),
    ),
    _pair(
        "accepted_network_is_cut",
        "a map of networks: a rule for half of an accepted network cuts its element in two",
        Side(rules=(*_ACCEPT_NETWORK, *_FOURTEEN)),
        "accept 3 udp 7000 bad1-half",
        forbidden=_GOOD,
        allowed=_ONE_BAD,
        differing=("udp bad1-half 7000",),
    ),
    _pair(
        "network_more",
        "a map of networks gets an element more, which drops",
        Side(rules=_CLASSES),
        "drop 1 udp 82 bad2",
        forbidden=_ONE_BAD,
        allowed=_GOOD,
        differing=("udp bad2 82",),
    ),
    _pair(
        "drop_moves_into_a_map",
        "a drop rule for all gets a network as its object: from a rule to an element of a standing map",
        Side(rules=(*_FOURTEEN, "accept 1 udp 84 bad2", "drop 1 udp 82 any", "accept 2 udp 1/1024 any")),
        rules=(*_FOURTEEN, "accept 1 udp 84 bad2", "drop 1 udp 82 bad1", "accept 2 udp 1/1024 any"),
        forbidden=("udp bad1 82",),
        allowed=("udp good 100", "udp bad2 84"),
        differing=("udp good 82",),
    ),
    _pair(
        "map_of_networks_is_replaced",
        "forty networks of the map are replaced by others",
        Side(rules=(*_CLASSES, *(f"accept 5 udp 70{n:02} far-{n}" for n in range(20, 60)))),
        rules=(*_CLASSES, *(f"accept 5 udp 71{n:02} far-{n}" for n in range(60, 99))),
        forbidden=_ONE_BAD,
        allowed=_GOOD,
        differing=("udp far-20 7020", "udp far-60 7160"),
    ),
    _pair(
        "map_of_ports",
        "a map of single ports gets one more; one of its ports is dropped all the time",
        Side(rules=(*_CLASSES, *(f"accept 1 tcp {3000 + 2 * n} bad1" for n in range(20)))),
        rules=(*_CLASSES, *(f"accept 1 tcp {3000 + 2 * n} bad1" for n in range(21))),
        forbidden=_ONE_BAD,
        allowed=(*_GOOD, "tcp bad1 3008"),
    ),
    _pair(
        "map_of_ports_for_everyone",
        "the map of single ports of the rules for everyone gets one more",
        Side(rules=(*_BROAD, "drop 1 udp 83 any", *(f"accept 1 tcp {3000 + 2 * n} any" for n in range(20)))),
        "accept 1 udp 9000 any",
        forbidden=("udp good 83", "tcp good 3001"),
        allowed=("udp good 82", "tcp good 3008"),
        differing=("udp good 9000",),
    ),
    _pair(
        "map_of_tcp_ranges",
        "a map of ranges of TCP ports gets one more; one of its ranges is dropped all the time",
        Side(
            rules=(*_FOURTEEN, "drop 1 tcp 80/85 bad1", "accept 2 tcp 1/1024 any", *_ranges(2000, 14, "bad1"))
        ),
        rules=(*_FOURTEEN, "drop 1 tcp 80/85 bad1", "accept 2 tcp 1/1024 any", *_ranges(2000, 15, "bad1")),
        forbidden=("tcp bad1 82",),
        allowed=("tcp good 82", "tcp bad1 2003"),
    ),
    _pair(
        "map_of_udp_ranges",
        "a map of ranges of UDP ports gets one more; one of its ranges is dropped all the time",
        Side(
            rules=(
                *_FOURTEEN,
                "drop 1 udp 80/85 bad1",
                "accept 2 udp 1/1024 any",
                *_ranges(2000, 14, "bad1", "udp"),
            )
        ),
        rules=(
            *_FOURTEEN,
            "drop 1 udp 80/85 bad1",
            "accept 2 udp 1/1024 any",
            *_ranges(2000, 15, "bad1", "udp"),
        ),
        forbidden=("udp bad1 82",),
        allowed=("udp good 82", "udp bad1 2003"),
        differing=("udp bad1 2142",),
    ),
    _pair(
        "range_gets_wider",
        "in a map of ranges of ports the dropped range gets wider",
        Side(
            rules=(
                *_FOURTEEN,
                "drop 1 udp 80/85 bad1",
                "accept 2 udp 1/1024 any",
                *_ranges(2000, 14, "bad1", "udp"),
            )
        ),
        rules=(
            *_FOURTEEN,
            "drop 1 udp 80/95 bad1",
            "accept 2 udp 1/1024 any",
            *_ranges(2000, 14, "bad1", "udp"),
        ),
        forbidden=("udp bad1 82",),
        allowed=("udp good 82", "udp bad1 2003"),
        differing=("udp bad1 90",),
    ),
    _pair(
        "map_of_ranges_is_replaced",
        "sixty ranges of ports are replaced by others",
        Side(
            rules=(
                "drop 1 udp 80/85 bad1",
                "accept 2 udp 1/1024 any",
                *_ranges(2000, 60, "bad1", "udp"),
                "accept 1 udp 84 bad2",
            )
        ),
        rules=(
            "drop 1 udp 80/85 bad1",
            "accept 2 udp 1/1024 any",
            *_ranges(4005, 60, "bad1", "udp"),
            "accept 1 udp 84 bad2",
        ),
        forbidden=("udp bad1 82",),
        allowed=("udp good 82", "udp bad2 84"),
        differing=("udp bad1 2003", "udp bad1 4007"),
    ),
    _pair(
        "map_of_protocols",
        "a map of protocols gets one more; one of its protocols is dropped all the time",
        Side(rules=("accept 2 all any", *(f"drop 1 {number} bad1" for number in range(200, 216)))),
        rules=("accept 2 all any", *(f"drop 1 {number} bad1" for number in range(200, 217))),
        forbidden=("200 bad1", "208 bad1"),
        allowed=("220 bad1", "208 good"),
    ),
)

_CELL = ("accept 1 udp 82 pl-bad sport 1024/29999", "accept 1 udp 84 pl-bad sport 1024/29999 local near-1")

OF_CELLS = (
    _pair(
        "source_ports_in_a_list",
        "a list with source ports and near ends; one unrelated rule more",
        Side(rules=_CELL, lists=_LIST),
        "accept 1 udp 86 bad1 sport 1024/29999",
        forbidden=("udp bad1 82 from 30000", "udp bad1 84 from 40000"),
        allowed=("udp bad1 82 from 2000", "udp bad1 84 from 2000"),
        differing=("udp bad1 86 from 2000",),
    ),
    _pair(
        "cells",
        "cells: one more line, with source ports and a near end, for the same port",
        Side(rules=(*_FOURTEEN, *_CELL), lists=_LIST),
        "accept 1 udp 82 bad1 sport 40000/50000",
        forbidden=("udp bad1 82 from 30000", "udp bad1 84 from 40000"),
        allowed=("udp bad1 82 from 2000", "udp bad1 84 from 2000"),
        differing=("udp bad1 82 from 45000",),
    ),
    _pair(
        "map_of_source_ports",
        "many ranges of source ports for one port, in a map; one range more",
        Side(rules=(*_FOURTEEN, *_source_ports(82, 12, "bad1"))),
        "accept 1 udp 82 bad1 sport 40000/50000",
        forbidden=("udp bad1 82 from 2500", "udp bad1 82 from 35000"),
        allowed=("udp bad1 82 from 1500", "udp bad1 82 from 21000"),
        differing=("udp bad1 82 from 45000",),
    ),
    _pair(
        "map_of_near_ends",
        "many near networks for one port, in a map; one network more",
        Side(rules=(*_FOURTEEN, *_near_ends(82, range(12), "bad1"), *_near_ends(84, range(2, 13), "bad1"))),
        rules=(*_FOURTEEN, *_near_ends(82, range(13), "bad1"), *_near_ends(84, range(2, 14), "bad1")),
        forbidden=("udp bad1 84", "udp bad2 82"),
        allowed=("udp bad1 82",),
    ),
    _pair(
        "crowd",
        "so many overlapping ranges of source ports that a class is a list in order; one more",
        Side(
            rules=(
                "drop 1 udp 82 bad1 sport 40000/50000",
                *(f"accept 1 udp 82 bad1 sport {n}/30000" for n in range(1, 160)),
            )
        ),
        rules=(
            "drop 1 udp 82 bad1 sport 40000/50000",
            *(f"accept 1 udp 82 bad1 sport {n}/30000" for n in range(1, 161)),
        ),
        forbidden=("udp bad1 82 from 45000", "udp bad1 82 from 60000"),
        allowed=("udp bad1 82 from 20000",),
    ),
)

_TWO_LINKS = {"eth0": "sg-1", "eth1": "sg-2"}
_THREE_LINKS = {"eth0": "sg-1", "eth1": "sg-2", "eth2": "sg-2"}
_SECOND = {"sg-2": ("drop 1 udp 82 pl-bad", "accept 2 udp 82 any")}

OF_LINKS = (
    _pair(
        "inner_members",
        "fellow members in a list; one network of members more",
        Side(kind="basic", is_inner=True, members={"sg-1": ("bad1", "bad2")}),
        members={"sg-1": ("bad1", "bad2", "bad3")},
        forbidden=("in udp good 82", "in tcp good 82"),
        allowed=("in udp bad1 82", "in tcp bad2 82"),
        differing=("in udp bad3 82",),
    ),
    _pair(
        "inner_members_in_classes",
        "fellow members beside fourteen rules; one network of members more",
        Side(rules=_FOURTEEN, kind="basic", is_inner=True, members={"sg-1": ("bad1", "bad2")}),
        members={"sg-1": ("bad1", "bad2", "bad3")},
        forbidden=("in udp good 82", "in tcp good 82"),
        allowed=("in udp bad1 82", "in tcp bad2 82"),
        differing=("in udp bad3 82",),
    ),
    _pair(
        "failsafe_and_platform",
        "the lists of the configuration get an entry more each",
        Side(failsafe=("in udp 22 bad1", "out udp 53 bad1"), platform=("out all any bad2",)),
        platform=("out all any bad2", "out all any bad4"),
        failsafe=("in udp 22 bad1", "out udp 53 bad1", "in udp 22 bad3"),
        forbidden=("in udp bad1 23", "out udp good 53", "in tcp bad1 22"),
        allowed=("in udp bad1 22", "out udp bad1 53", "out udp bad2 4444"),
        differing=("in udp bad3 22", "out udp bad4 82"),
    ),
    _pair(
        "group_object",
        "a group as an object gets a member more, single addresses and a network",
        Side(rules=("drop 1 udp 82 sg-app", *_BROAD), members={"sg-app": ("bad1", "h50")}),
        members={"sg-app": ("bad1", "h50", "h60", "bad2")},
        forbidden=("udp bad1 82", "udp h50 82"),
        allowed=("udp good 82",),
        differing=("udp h60 82", "udp bad2 82"),
    ),
    _pair(
        "fourth_link",
        "three bound links, looked up in the base chain; a fourth is bound",
        Side(rules=(*_DROP_LIST, *_BROAD), others=_SECOND, lists=_LIST, bound=_THREE_LINKS),
        bound={**_THREE_LINKS, "eth3": "sg-2"},
        forbidden=(*_BAD, "in udp bad1 82 via eth1", "out udp bad1 82 via eth2"),
        allowed=(*_GOOD, "in udp good 82 via eth1", "out udp good 82 via eth2"),
        differing=("in udp bad1 82 via eth3",),
    ),
    _pair(
        "third_link",
        "two bound links, compared by name; a third brings the look-up",
        Side(rules=(*_DROP_LIST, *_BROAD), others=_SECOND, lists=_LIST, bound=_TWO_LINKS),
        bound=_THREE_LINKS,
        forbidden=(*_BAD, "in udp bad1 82 via eth1"),
        allowed=(*_GOOD, "in udp good 82 via eth1"),
        differing=("in udp bad1 82 via eth2",),
    ),
    _pair(
        "second_link",
        "one bound link, whose rules stand in the base chain; a second one comes and goes",
        Side(rules=(*_DROP_LIST, *_BROAD), others=_SECOND, lists=_LIST),
        bound=_TWO_LINKS,
        forbidden=_BAD,
        allowed=(*_GOOD, "in udp good 82 via eth1"),
        differing=("in udp bad1 82 via eth1",),
    ),
    _pair(
        "link_changes_groups",
        "a link gets another group with the same drops and accepts",
        Side(rules=(*_DROP_LIST, *_BROAD), others=_SECOND, lists=_LIST),
        bound={"eth0": "sg-2"},
        forbidden=("udp bad1 82", "udp bad2 82"),
        allowed=("udp good 82",),
    ),
    Pair(
        name="link_without_groups",
        about="a link without groups, which is closed, gets a group that drops by a list",
        before=Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST, bound={"eth0": ""}),
        after=Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST),
        forbidden=_BAD,
        differing=("udp good 82",),
    ),
    _pair(
        "unbound_links_closed",
        "unbound links are closed; the bound one gets an unrelated rule",
        Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST, is_closed=True),
        *_UNRELATED,
        forbidden=("in udp bad1 82", "in udp good 82 via eth2", "out udp good 82 via eth2"),
        allowed=("in udp good 82",),
        differing=("in udp good 9000",),
    ),
    _pair(
        "unbound_links_open_or_closed",
        "unbound links are open, then closed; the bound one stays as it is",
        Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST),
        is_closed=True,
        forbidden=("in udp bad1 82",),
        allowed=("in udp good 82",),
        differing=("in udp good 82 via eth2",),
    ),
    _pair(
        "observe_to_enforce",
        "a list is observed, then enforced",
        Side(rules=_ACCEPT_LIST, lists=_LIST, observed=frozenset({"eth0"})),
        observed=frozenset(),
        allowed=_BAD,
        differing=("udp good 82",),
    ),
    _pair(
        "observe_to_enforce_with_classes",
        "classes are observed, then enforced, with another rule",
        Side(rules=(*_ACCEPT_NETWORK, *_FOURTEEN), observed=frozenset({"eth0"})),
        "accept 3 udp 7000 bad1-half",
        observed=frozenset(),
        allowed=_ONE_BAD,
        differing=("udp good 82",),
    ),
    _pair(
        "other_link_observed",
        "another link is observed, then enforced, beside one with a list",
        Side(
            rules=(*_DROP_LIST, *_BROAD),
            others=_SECOND,
            lists=_LIST,
            bound=_TWO_LINKS,
            observed=frozenset({"eth1"}),
        ),
        *_UNRELATED,
        observed=frozenset(),
        forbidden=_BAD,
        allowed=_GOOD,
        differing=("in udp bad1 82 via eth1", "udp good 9000"),
    ),
    _pair(
        "basic_to_advanced",
        "the group's type changes, and with it the default of egress",
        Side(rules=(*_DROP_LIST, *_BROAD), lists=_LIST, kind="basic"),
        kind="advanced",
        forbidden=_BAD,
        allowed=_GOOD,
        differing=("out udp good 9000",),
    ),
    Pair(
        name="flow_log",
        about="the kernel reports drops; otherwise as the first pair",
        before=_DROP_BEFORE,
        after=_DROP_AFTER,
        forbidden=_BAD,
        allowed=_GOOD,
        differing=("udp good 9000",),
        is_logged=True,
    ),
)


def _renamed(name: str, about: str, side: Side, forbidden: tuple[str, ...], allowed: tuple[str, ...]) -> Pair:
    """Return a pair that differs in the ids of rules alone: all leaf chains are replaced."""
    after = replace(side, ids="other-")
    return Pair(name=name, about=about, before=side, after=after, forbidden=forbidden, allowed=allowed)


OF_NAMES = (
    _renamed(
        "rules_of_a_list_renamed",
        "all rules of a list get other ids",
        _DROP_BEFORE,
        forbidden=_BAD,
        allowed=_GOOD,
    ),
    _renamed(
        "rules_of_networks_renamed",
        "all rules behind a map of networks get other ids",
        Side(rules=(*_CLASSES, "accept 1 tcp 84 bad1")),
        forbidden=_ONE_BAD,
        allowed=(*_GOOD, "tcp bad1 84"),
    ),
    _renamed(
        "rules_of_ranges_renamed",
        "all rules behind maps of ports and of ranges get other ids",
        Side(
            rules=(
                "drop 1 tcp 80/85 bad1",
                "accept 2 tcp 1/1024 any",
                *_ranges(2000, 14, "bad1"),
                *(f"accept 1 tcp {3000 + 2 * n} bad1" for n in range(14)),
                "drop 1 tcp 3100 bad1",
                "accept 2 tcp 3100 any",
            )
        ),
        forbidden=("tcp bad1 82", "tcp bad1 3100"),
        allowed=("tcp good 82", "tcp bad1 2003", "tcp bad1 3004"),
    ),
    _renamed(
        "rules_of_source_ports_renamed",
        "all rules behind a map of source ports get other ids",
        Side(rules=(*_FOURTEEN, *_source_ports(82, 12, "bad1"), "accept 2 udp 82 any")),
        forbidden=("udp bad1 82 from 2500", "udp bad1 82 from 4500"),
        allowed=("udp bad1 82 from 1500", "udp bad1 82 from 21000", "udp good 82"),
    ),
    _renamed(
        "rules_of_near_ends_renamed",
        "all rules behind a map of near ends get other ids",
        Side(
            rules=(
                *_FOURTEEN,
                *(f"drop 1 udp 82 bad1 local near-{number}" for number in range(12)),
                *_near_ends(84, range(12), "bad1"),
                "accept 2 udp 82 any",
            )
        ),
        forbidden=("udp bad1 82",),
        allowed=("udp bad1 84", "udp good 82"),
    ),
    _pair(
        "class_is_renamed",
        "a dropped network gets into a prefix list as well, so that its class has another name",
        Side(rules=_CLASSES),
        "accept 3 udp 7000 pl-more",
        lists={"pl-more": ("bad1", "bad3")},
        forbidden=_ONE_BAD,
        allowed=_GOOD,
        differing=("udp bad1 7000",),
    ),
    _pair(
        "accepted_class_is_renamed",
        "an accepted network gets into a prefix list as well, so that its class has another name",
        Side(rules=(*_ACCEPT_NETWORK, *_FOURTEEN)),
        "accept 3 udp 7000 pl-more",
        lists={"pl-more": ("bad1", "bad3")},
        forbidden=_GOOD,
        allowed=_ONE_BAD,
        differing=("udp bad1 7000",),
    ),
)

SMALL = (*OF_LISTS, *OF_SHAPES, *OF_CLASSES, *OF_CELLS, *OF_LINKS, *OF_NAMES)
"""Pairs whose change takes the kernel little time."""

_NETWORK_IS_CUT = next(pair for pair in OF_CLASSES if pair.name == "network_is_cut")

LARGE = (
    DROP_ON_A_LIST.beside(1_500),
    DROP_ON_A_LIST.beside(1_500, standing=True),
    _NETWORK_IS_CUT.beside(1_500),
)

KINDS = {
    "lists of networks": OF_LISTS,
    "a list of rules becomes classes": OF_SHAPES,
    "maps of hosts, networks, ports and protocols": OF_CLASSES,
    "source ports and near ends": OF_CELLS,
    "links, groups, members, modes and exemptions": OF_LINKS,
    "other ids of rules, other names of chains": OF_NAMES,
    "1,500 rules of another link beside": LARGE,
}
"""The pairs that are run together, by what changes."""

LARGEST = (DROP_ON_A_LIST.beside(5_000), _NETWORK_IS_CUT.beside(5_000))
"""A change takes seconds to compile."""
