"""Show the form that asks what becomes of a packet, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgagent.agent.control.queries import ExplainAnswer
from sgagent.agent.web.explain_form import (
    DESTINATION,
    DIRECTION,
    ICMP_TYPE,
    INTERFACE,
    PORT,
    PROTOCOL,
    SOURCE,
    SOURCE_PORT,
    Form,
)
from sgagent.agent.web.markup import Element, Node, tag
from sgagent.agent.web.shell import Section
from sgagent.agent.web.tables import Align, Column, table
from sgagent.agent.web.verdict import verdict
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import (
    EPHEMERAL_PORT,
    PROTOCOL_WORDS,
    ExplainedRule,
    Explanation,
    describe_packet,
    reason,
)
from sgagent.core.model import Direction, Mode


def form_section(form: Form, interfaces: Sequence[str]) -> Section:
    """Return the form, filled in as it was sent, with what is wrong beside each field.

    Args:
        form: what was sent.
        interfaces: those that are judged.
    """
    content = tag(
        "form",
        *(_field(each, form) for each in _fields(interfaces)),
        tag("p", tag("button", "Explain", type="submit"), class_="sending"),
        action="explain#answer",
        method="get",
        autocomplete="off",
    )
    return Section("explain", "What becomes of a packet?", (content,))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One field of the form."""

    name: str
    label: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    """Words to choose from; none is a field to write in."""

    suggestions: tuple[str, ...] = ()
    is_number: bool = False
    is_required: bool = False


def _fields(interfaces: Sequence[str]) -> Iterator[_Field]:
    yield _Field(
        name=DIRECTION,
        label="Direction",
        choices=tuple(direction.value for direction in Direction),
        is_required=True,
    )
    if len(interfaces) > 1:
        yield _Field(name=INTERFACE, label="Interface", choices=tuple(interfaces), is_required=True)
    yield _Field(name=SOURCE, label="Source", hint="an address", is_required=True)
    yield _Field(name=DESTINATION, label="Destination", hint="an address", is_required=True)
    yield _Field(
        name=PROTOCOL,
        label="Protocol",
        hint="a name, or a number",
        suggestions=PROTOCOL_WORDS,
        is_required=True,
    )
    yield _Field(name=PORT, label="Port", hint="of TCP and UDP", is_number=True)
    yield _Field(name=SOURCE_PORT, label="Source port", hint=f"{EPHEMERAL_PORT} if empty", is_number=True)
    yield _Field(name=ICMP_TYPE, label="ICMP type", hint="of ICMP and ICMPv6", is_number=True)


def _field(field: _Field, form: Form) -> Element:
    fault = form.faults.get(field.name)
    about = {f"{field.name}-hint": field.hint, f"{field.name}-fault": fault}
    described = " ".join(name for name, text in about.items() if text) or None
    control = _choice if field.choices else _input
    return tag(
        "p",
        tag("label", field.label, for_=field.name),
        control(field, form, described),
        tag("span", field.hint, id=f"{field.name}-hint", class_="hint") if field.hint else None,
        tag("span", fault, id=f"{field.name}-fault", class_="fault") if fault else None,
        tag("datalist", *_options(field.suggestions), id=f"{field.name}-words")
        if field.suggestions
        else None,
        class_="field",
    )


def _choice(field: _Field, form: Form, described: str | None) -> Element:
    return tag(
        "select",
        *(tag("option", word, value=word, selected=word == form.value(field.name)) for word in field.choices),
        id=field.name,
        name=field.name,
        aria_describedby=described,
        aria_invalid="true" if field.name in form.faults else None,
    )


def _input(field: _Field, form: Form, described: str | None) -> Element:
    return tag(
        "input",
        id=field.name,
        name=field.name,
        value=form.value(field.name) or None,
        required=field.is_required,
        inputmode="numeric" if field.is_number else None,
        list=f"{field.name}-words" if field.suggestions else None,
        spellcheck="false",
        aria_describedby=described,
        aria_invalid="true" if field.name in form.faults else None,
    )


def _options(words: Sequence[str]) -> Iterator[Element]:
    return (tag("option", value=word) for word in words)


def faults_section(form: Form) -> Section:
    """Return what is wrong with the form, with links to the fields."""
    links = (
        tag("li", tag("a", f"{name.replace('_', ' ').capitalize()}: {fault}", href=f"#{name}"))
        for name, fault in form.faults.items()
    )
    return Section("answer", "There is something wrong with the question", (tag("ul", *links),))


def refusal_section(reason: str) -> Section:
    """Return why the question makes no sense on this host."""
    return Section("answer", "That can’t be answered", (tag("p", reason),))


def answer_section(answer: ExplainAnswer, packet: Packet) -> Section:
    """Return the verdict, how it came about, and what stands behind the rule that decided."""
    explanation = answer.explanation
    content = (
        tag("p", verdict(explanation.verdict), " ", tag("strong", describe_packet(packet)), class_="answer"),
        tag("p", *_reason(explanation, packet)),
        *_behind(explanation),
        tag("p", f"By the policy in force, snapshot {answer.snapshot_version or 'none'}.", class_="quiet"),
    )
    return Section("answer", "Answer", content)


def _reason(explanation: Explanation, packet: Packet) -> Iterator[Node]:
    rule = explanation.rule
    if rule:
        yield "Decided by rule "
        yield tag("code", rule.rule_id)
        yield " of "
        yield tag("code", rule.security_group_id)
        yield f", priority {rule.priority}, object {rule.authorization_object}."
    else:
        yield f"Decided by {explanation.decided_by.value}: {reason(explanation.decided_by, packet)}."
    if explanation.mode is Mode.OBSERVE:
        yield f" {explanation.interface} is only observed: nothing is dropped there."


def _behind(explanation: Explanation) -> Iterator[Element]:
    if not explanation.shadowed:
        yield tag("p", "No other rule matches." if explanation.rule else "No rule matches.")
        return
    caption = "Rules that match behind it" if explanation.rule else "Rules that match, too"
    yield table(caption, _COLUMNS, map(_row, explanation.shadowed))


_COLUMNS = (
    Column("Rule", is_name=True),
    Column("Group"),
    Column("Verdict"),
    Column("Priority", Align.RIGHT),
    Column("Object"),
)


def _row(rule: ExplainedRule) -> tuple[Node, ...]:
    return (
        rule.rule_id,
        rule.security_group_id,
        verdict(rule.policy),
        str(rule.priority),
        rule.authorization_object,
    )
