"""Names of the DNS as objects of rules (§12.3)."""

from __future__ import annotations

import pytest

from sgagent.core.errors import Severity
from sgagent.core.model import CidrBlock, NameReference
from sgagent.documents import Limits
from sgagent.documents.assembly import derive_rule_id
from sgagent.documents.writer import as_yaml, write_document
from tests.unit.documents.reading import codes, document, parse, refused, rule_document, snapshot, the_rule

MIRROR = NameReference("mirror.example.org")


@pytest.mark.parametrize(
    "written",
    (
        "dns:mirror.example.org",
        "dns:mirror.example.org.",
        "dns:Mirror.EXAMPLE.org",
        "DNS:mirror.example.org",
        ["dns:mirror.example.org", "dns:MIRROR.example.org."],
    ),
)
def test_a_name_has_neither_case_nor_a_final_dot(written: object) -> None:
    """However it is written, it is one name, and one derived id."""
    rule = the_rule(snapshot(rule_document(authorization_object=written)))
    assert rule.authorization_objects == (MIRROR,)
    plain = the_rule(snapshot(rule_document(authorization_object="dns:mirror.example.org")))
    assert rule.rule_id == plain.rule_id == derive_rule_id("sg-1", rule)


@pytest.mark.parametrize(
    "name", ("_acme._tcp.example.org", "a-b.example", f"{'a' * 63}.example", "1.example.org")
)
def test_labels_of_host_names_are_taken(name: str) -> None:
    """Underscores occur in names of services, digits anywhere but as the last label."""
    rule = the_rule(snapshot(rule_document(authorization_object=f"dns:{name}")))
    assert rule.authorization_objects == (NameReference(name),)


@pytest.mark.parametrize(
    ("written", "meant"),
    (
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
    ),
)
def test_unicode_is_written_as_its_punycode(written: str, meant: str) -> None:
    """A warning names the Unicode text."""
    found, warnings = parse(rule_document(authorization_object=f"dns:{written}"))
    assert the_rule(found).authorization_objects == (NameReference(meant),)
    (warning,) = warnings
    assert (warning.severity, warning.code) == (Severity.WARNING, "unicode_name")
    assert warning.remedy == f"dns:{meant}"
    assert warning.message.startswith(written)


def test_punycode_is_shown_in_unicode() -> None:
    """It may look like another name: here the first letter is Cyrillic."""
    found, warnings = parse(rule_document(authorization_object="dns:xn--pple-43d.example"))
    assert the_rule(found).authorization_objects == (NameReference("xn--pple-43d.example"),)
    (warning,) = warnings
    assert (warning.code, "\u0430pple.example" in warning.message) == ("unicode_name", True)


@pytest.mark.parametrize(
    "name",
    ("fa\u00df.example", "FA\u1e9e.example", "\u03b1\u03c2.example", "a\u200db.example", "a\u200cb.example"),
)
def test_letters_that_standards_read_differently_are_an_error(name: str) -> None:
    """By the older one the first is fass.example, maybe somebody else's; punycode says what is meant."""
    (problem,) = refused(rule_document(authorization_object=f"dns:{name}"))
    assert (problem.code, "xn--" in problem.remedy) == ("bad_name", True)
    found, _ = parse(rule_document(authorization_object="dns:xn--fa-hia.example"))
    assert the_rule(found).authorization_objects == (NameReference("xn--fa-hia.example"),)


@pytest.mark.parametrize(
    "name",
    (
        "",
        "xn--\u00fc.example",
        "xn--99999999.example",
        ".",
        "localhost",
        "example.",
        "*.example.org",
        "a.*.example.org",
        "a..example.org",
        ".example.org",
        "-a.example.org",
        "a-.example.org",
        "example.org..",
        "10.0.0.1",
        "2001:db8::1",
        "10.0.0.0/8",
        "1.2",
        "www.example.org:443",
        "www.example.org/path",
        "www example.org",
        f"{'a' * 64}.example.org",
        f"{'a.' * 126}bc",
        "ü" * 64 + ".example.org",
    ),
)
@pytest.mark.parametrize("is_listed", (False, True))
def test_a_malformed_name_is_an_error(name: str, is_listed: bool) -> None:  # noqa: FBT001 - of a parameter
    """With what would be right."""
    written = ["sg-x", f"dns:{name}"] if is_listed else f"dns:{name}"
    (problem,) = refused(rule_document(authorization_object=written))
    assert problem.code == "bad_name"
    assert problem.remedy
    assert problem.origin.path.endswith("authorization_object[1]" if is_listed else "authorization_object")


def test_a_drop_rule_refuses_a_name() -> None:
    """Also in a list, where the error is at the item."""
    (problem,) = refused(rule_document(policy="drop", authorization_object="dns:mirror.example.org"))
    assert (problem.code, problem.value) == ("name_in_drop", "dns:mirror.example.org")
    written = ["10.0.0.0/8", "dns:mirror.example.org"]
    (problem,) = refused(rule_document(policy="drop", authorization_object=written))
    assert problem.origin.path.endswith("authorization_object[1]")


def test_a_name_may_stand_beside_other_objects_and_is_of_both_families() -> None:
    """An ICMP rule with a name alone is right, as one with a group is."""
    rule = the_rule(snapshot(rule_document(authorization_object=["10.0.0.0/8", "dns:mirror.example.org"])))
    assert rule.authorization_objects == (CidrBlock.parse("10.0.0.0/8"), MIRROR)
    for fields in ({"protocol": "icmp"}, {"protocol": "icmpv6"}, {"protocol": ["icmp", "icmpv6"]}):
        ping = rule_document(**fields, port_range=None, authorization_object="dns:mirror.example.org")
        assert the_rule(snapshot(ping)).authorization_objects == (MIRROR,)
    local = rule_document(local_address="10.0.0.1", authorization_object="dns:mirror.example.org")
    assert the_rule(snapshot(local)).local_address == CidrBlock.parse("10.0.0.1")


def test_what_is_written_is_read_again() -> None:
    """Equal, and with an equal digest."""
    found = snapshot(rule_document(authorization_object=["sg-a", "dns:mirror.example.org"]))
    again = snapshot(as_yaml(write_document(found)))
    assert the_rule(again).authorization_objects == the_rule(found).authorization_objects
    assert again.version == found.version


def test_a_group_has_no_id_that_a_rule_would_read_as_a_name() -> None:
    """Whatever its letters' case."""
    problems = refused(document(security_groups=[{"security_group_id": "Dns:a.example"}]))
    assert codes(problems) == ["bad_id"]


def test_more_names_than_the_limit_are_an_error() -> None:
    """Each counts once, however many rules name it; the error says what to raise."""

    def naming(*names: str) -> str:
        rules = [
            {
                "direction": "egress",
                "policy": "accept",
                "protocol": "all",
                "priority": 1 + place,
                "authorization_object": f"dns:{name}",
            }
            for place, name in enumerate(names)
        ]
        return document(security_groups=[{"security_group_id": "sg-1", "rules": rules}])

    two = Limits(names=2)
    parse(naming("a.example", "b.example", "A.example."), limits=two)
    (problem,) = refused(naming("a.example", "b.example", "c.example", "d.example"), limits=two)
    assert (problem.code, problem.message) == ("too_many_names", "more than 2 names")
    assert "limits.names" in problem.remedy
    listed = rule_document(authorization_object=["dns:a.example", "dns:b.example", "dns:c.example"])
    (problem,) = refused(listed, limits=two)
    assert problem.origin.path.endswith(".authorization_object[2]")
