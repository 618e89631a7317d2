"""The rulesets that the bench makes out of ours are what their names say."""

from __future__ import annotations

import re

from bench.policies import invent
from bench.sizes import SIZES
from bench.variants import by_length, features, shapes, stages, statements

POLICY = invent(SIZES[0])
TEXTS = {shape.name: shape.text(POLICY) for shape in shapes()}


def test_every_shape_is_another_one() -> None:
    """No two texts are alike, but for ours, which at ten rules is a list."""
    assert TEXTS["sgagent"] == TEXTS["sgagent, a list alone"]
    assert len(set(TEXTS.values())) == len(TEXTS) - 1


def test_each_stage_is_cut_off_behind_the_one_before() -> None:
    """An accept stands at the top of the chains where a stage begins, and nowhere in the whole."""
    cut_off = re.compile(r"chain \S+ \{\n(?:\t\ttype .*\n)?(?:\t\tiifname .*\n)?\t\taccept\n")
    *before, whole = stages(invent(SIZES[1])).values()
    assert all(cut_off.search(text) for text in before)
    assert not cut_off.search(whole)
    assert len(set(before)) == len(before)


def test_sessions_are_read_by_tuples_alone_where_that_is_said() -> None:
    """No way leads to a header: neither from the entry nor past a guard."""
    text = TEXTS["look-ups, sessions read from their tuples"]
    assert "goto peers/" not in text
    assert "established,related" not in text


def test_maps_have_a_size_where_that_is_said() -> None:
    """Each hash map can hold what is in it; maps of intervals have none to declare."""
    text = TEXTS["look-ups, maps of declared size"]
    sizes = re.findall(r"(?s)\tsize (\d+)\n(.*?)\n\t\}", text)
    assert sizes
    assert all(elements.count(" : ") == int(size) for size, elements in sizes)
    assert len(sizes) == text.count("\tmap ") - text.count("flags interval")


def test_the_one_map_has_an_element_for_each_member_and_port() -> None:
    """It is looked up instead of address and port, and misses go on."""
    text = TEXTS["one map of address, protocol and port"]
    (elements,) = re.findall(r"(?s)map together \{.*?elements = \{ (.*?) \}", text)
    members = sum(len(group.numbers) for group in POLICY.groups)
    of_groups = sum(rule.authorization_object in POLICY.groups for rule in POLICY.rules)
    of_networks = len(POLICY.rules) - of_groups
    assert len(elements.split(", ")) == members * of_groups + of_networks
    assert text.count("vmap @together") == 1


def test_statements_and_lengths_are_different_rulesets() -> None:
    """Each statement stands in a ruleset of its own."""
    for texts in (statements(), by_length(POLICY)):
        assert len(set(texts.values())) == len(texts)


def test_features_are_there_where_that_is_said() -> None:
    """Sources are compared, rules have both protocols, and neither without."""
    texts = features(POLICY)
    plain, listed, one, many, everything, prefix = texts.values()
    assert plain == TEXTS["sgagent"]
    assert [text.count("chain sources/eth0/ingress/ipv4") for text in texts.values()] == [0, 0, 1, 1, 1, 0]
    assert "ip saddr 192.0.2.10 goto spoofed" in one
    assert "ip saddr { 192.0.2.10, 192.0.2.20" in many
    assert [text for text in texts.values() if "2001:db8::/32" in text] == [listed, everything]
    assert 'iifname "eth*"' in prefix
    assert len(set(texts.values())) == len(texts)
