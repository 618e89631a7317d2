"""What a native document means, by a judge that was written from the text alone (§3 to §5, §7, §12)."""

from __future__ import annotations

import json

from hypothesis import given, note

from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import evaluate
from tests.draws import Draws
from tests.oracle import Judgement, judge
from tests.oracle_documents import TIMES, drawn_attempt, drawn_document, drawn_edges, packet_of, policy_of
from tests.strategies import draws, examples


@examples(120)
@given(draws())
def test_a_document_means_what_the_text_says(draws: Draws) -> None:
    """Verdict, step and rule of each packet, by every list, end and source check."""
    document, edges = drawn_document(draws), drawn_edges(draws)
    note(json.dumps(document, indent=1))
    note(str(edges))
    at = draws.choice(TIMES)
    policy = policy_of(document, edges, at)
    for attempt in draws.many(drawn_attempt, 40, is_full=True):
        link = draws.choice(tuple(edges))
        decision = evaluate(policy, packet_of(attempt, link))
        rule_id = decision.rule.rule_id if decision.decided_by is DecidedBy.RULE and decision.rule else None
        found = Judgement(decision.verdict.value, decision.decided_by.value, rule_id)
        assert found == judge(document, edges[link], attempt, at), (link, attempt)
