"""No bytes whatever make the readers of documents do anything but answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given, strategies as st

from sgagent.core.errors import DocumentError, Problem, Severity
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.draws import Draws
from tests.strategies import draws
from tests.unit.documents import test_api, test_native
from tests.unit.documents.reading import RULE

LIMITS = Limits(document_bytes=100_000, rules=50, addresses=500)
NAMES = st.sampled_from(("a.yaml", "a.json", "prl-1"))
GOOD = [
    test_native.EVERYTHING.encode(),
    test_api.with_rule().encode(),
    test_api.interfaces(test_api.INTERFACE).encode(),
    json.dumps(test_api.PORTS).encode(),
]
SNIPPETS = [
    b"&a ",
    b"*a",
    b"<<: ",
    b"\0",
    b"\xff",
    b"- ",
    b"[",
    b"{",
    b'"',
    b"\\ud800",
    b"!!int ",
    b"---\n",
    b"null",
    b"-1/-1",
    b"1e999",
    b"::/0",
]


def answer(content: bytes, name: str) -> None:
    """Parse the bytes, and check that the answer is one of the two that are promised."""
    problems: Sequence[Problem] = ()
    try:
        snapshot, warnings = parse_documents([DocumentFile(name, content)], LIMITS)
    except DocumentError as error:
        problems = error.problems
    else:
        assert snapshot.version.startswith("sha256:")
        assert all(problem.severity is Severity.WARNING for problem in warnings)
        return
    assert any(problem.severity is Severity.ERROR for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)


@given(st.binary(max_size=200), NAMES)
def test_any_bytes_are_answered(content: bytes, name: str) -> None:
    """Random bytes are refused, or mean something."""
    answer(content, name)


@given(st.text(alphabet="{}[]\":,-\n\t &*!?|>#%@`'a1\\\x85\u2028", max_size=100), NAMES)
def test_any_punctuation_is_answered(text: str, name: str) -> None:
    """So is what is mostly syntax."""
    answer(text.encode(), name)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a good document with a few pieces cut out, doubled or put in."""
    content = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(content)))
        last = draw(st.integers(first, min(len(content), first + 30)))
        piece = draw(st.sampled_from([b"", content[first:last] * 2, *SNIPPETS]))
        content = content[:first] + piece + content[last:]
    return content


@given(mutated(), NAMES)
def test_any_mutation_of_a_good_document_is_answered(content: bytes, name: str) -> None:
    """Half-written and damaged files are refused, or mean something."""
    answer(content, name)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
WORDS = st.sampled_from(
    (
        *("version", "security_groups", "security_group_id", "rules", "entries", "tags", "Tags", "Tag"),
        *("SecurityGroups", "SecurityGroup", "Permissions", "Permission", "NetworkInterfaceSets"),
        *("PrefixListId", "Entries", "RequestId", "SecurityGroupId"),
    )
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(TREES)
def test_any_json_is_answered(tree: object) -> None:
    """Values of any type may stand anywhere."""
    answer(json.dumps(tree).encode(), "a.json")


@given(draws())
def test_order_does_not_count(draws: Draws) -> None:
    """Shuffled documents make the same snapshot, of the same version (§1.5)."""
    groups = [
        {
            "security_group_id": f"sg-{number}",
            "member_addresses": [f"10.0.{number}.{host}" for host in range(1, 4)] + ["2001:db8::1"],
            "rules": [{**RULE, "port_range": f"{port}"} for port in (80, 443, 8080)],
        }
        for number in range(3)
    ]
    shuffled = [
        {name: draws.shuffled(value) if isinstance(value, list) else value for name, value in group.items()}
        for group in draws.shuffled(groups)
    ]
    first, _ = parse_documents([_file("a", groups)], Limits())
    second, _ = parse_documents([_file("z", shuffled[:1]), _file("b", shuffled[1:])], Limits())
    assert first == second


def _file(name: str, groups: Sequence[object]) -> DocumentFile:
    """Return a native document."""
    return DocumentFile(name, json.dumps({"version": 1, "security_groups": groups}).encode())
