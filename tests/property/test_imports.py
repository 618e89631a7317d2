"""What is imported means what it meant, and never more."""

from __future__ import annotations

import json
from random import Random

from hypothesis import example, given, strategies as st

from sgagent.core.binding import bind_everywhere
from sgagent.core.evaluate import evaluate, is_always_allowed
from sgagent.core.model import Policy, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Scope, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writing import write_document
from sgagent.documents.yamlwriting import as_yaml
from sgagent.imports import Imported, import_aws
from tests.ec2 import Answer, allows, answers, packets
from tests.generators import random_snapshot
from tests.strategies import seeds

PACKETS = 60
"""Of those that answers can tell apart, for each set of answers."""

EVERY_PACKET = tuple(packets())


def imported(told: list[Answer]) -> Imported:
    """Return what the answers come to."""
    return import_aws([DocumentFile("answers.json", json.dumps(told).encode())], Limits())


def written(snapshot: Snapshot) -> Snapshot:
    """Return what a reader of the written document gets."""
    text = as_yaml(write_document(snapshot))
    return parse_documents([DocumentFile("imported.yaml", text.encode())], Limits())[0]


def policy_of(told: Imported) -> ResolvedPolicy:
    """Return the policy of every interface, by way of the written document."""
    snapshot = written(told.snapshot)
    resolution = resolve(snapshot, bind_everywhere(snapshot), Exemptions(), scope=Scope.EVERYTHING)
    assert resolution.errors == ()
    assert resolution.policy is not None
    return resolution.policy


@given(answers(with_what_has_no_equal=False), seeds)
def test_what_has_an_equal_is_equal(told: list[Answer], seed: int) -> None:
    """Without a note, every packet is decided as AWS decides it."""
    found = imported(told)
    assert found.notes == ()
    policy = policy_of(found)
    for judged in Random(seed).sample(EVERY_PACKET, PACKETS):
        if is_always_allowed(judged.packet) or judged.packet.destination_port == 0:
            continue
        accepts = evaluate(policy, judged.packet).verdict is Policy.ACCEPT
        assert accepts == allows(told, judged), judged


@given(answers(with_what_has_no_equal=True), seeds)
def test_nothing_is_ever_widened(told: list[Answer], seed: int) -> None:
    """What has no equal narrows: no packet passes that AWS would drop."""
    policy = policy_of(imported(told))
    for judged in Random(seed).sample(EVERY_PACKET, PACKETS):
        if evaluate(policy, judged.packet).verdict is Policy.ACCEPT and not is_always_allowed(judged.packet):
            assert allows(told, judged), judged


@given(seeds)
def test_what_is_written_is_read_again(seed: int) -> None:
    """A document that was written makes the very objects that it was written from, ids of rules included."""
    snapshot = written(random_snapshot(Random(seed), most_rules=5))
    assert written(snapshot) == snapshot


@example("\x85")
@example("a \u2028 b\n\u2029")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_survives(text: str) -> None:
    """Names, descriptions and tags come back letter by letter, whatever YAML would make of them unquoted."""
    group = {"GroupId": "sg-1", "GroupName": text, "Tags": [{"Key": text, "Value": text}]}
    snapshot = imported([{"SecurityGroups": [group]}]).snapshot
    (found,) = written(snapshot).security_groups
    assert (found.name, found.tags) == (text, ((text, text),))
