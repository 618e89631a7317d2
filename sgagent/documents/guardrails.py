"""Models of guardrails, and their parser: from bytes to statements (§13.4).

A file holds ``guardrails:``, a list whose items have an ``id``, a ``reason`` and one of ``never``, ``always``
and ``only``; or a list under each of these words. Id and reason may stand inside of the word's mapping, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

from sgagent.core.errors import DocumentError, Origin, Problem
from sgagent.core.guardrails import Guardrail, GuardrailKind, Guardrails
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    PORTED,
    AuthorizationObjects,
    CidrBlock,
    Direction,
    GroupReference,
    PortListReference,
    PortSet,
    Protocols,
)
from sgagent.core.rule_values import ANY, EVERYTHING, canonical_objects, protocols_text
from sgagent.documents import scalars, values
from sgagent.documents.field import Field, Reading
from sgagent.documents.field_types import Id, Text, Version
from sgagent.documents.models import DocumentModel, FieldType, PlacedValue, declare, one_of, read_model, ref
from sgagent.documents.parse import DocumentFile, read_tree
from sgagent.documents.problems import Budget, Findings, Limits, OverBudgetError
from sgagent.documents.tree import Listing, Mapping, Node

EVERY_INTERFACE = (ANY, "every bound interface")
"""What the near end of a statement may be in place of objects."""


def _parse_objects(field: Field) -> AuthorizationObjects:
    """Return objects as rules have them; every bound interface is ``any``."""
    written = (field.written or "").lower()
    if written in EVERY_INTERFACE:
        return EVERYTHING
    placed = values.parse_objects(field)
    wrong = [
        replace(values.no_object(str(one)), path=path)
        for path, one in placed
        if isinstance(one, GroupReference) and values.is_meant_as_address(one.security_group_id)
    ]
    if wrong:
        raise scalars.InvalidValueError(*wrong)
    return canonical_objects(one for _, one in placed)


def _parse_ports(node: Node) -> PortSet | PortListReference:
    """Return ports as rules have them, or a port list."""
    text = "" if isinstance(node, (Listing, Mapping)) else scalars.parse_digits(node, "a port range")
    if text.startswith("prl-"):
        return PortListReference(values.parse_id(text))
    return values.parse_ports(node)


Objects = Annotated[AuthorizationObjects, PlacedValue(_parse_objects, ref("objects"))]


class ScopeModel(DocumentModel):
    """The packets that a statement speaks of."""

    id: Id = ""
    reason: Text = ""
    direction: Annotated[Direction, one_of(values.DIRECTIONS)] = Direction.INGRESS
    source: Objects | None = declare(None, name="from")
    destination: Objects | None = declare(None, name="to")
    protocol: Annotated[Protocols, FieldType(values.parse_protocols, ref("protocols"))] | None = None
    ports: Annotated[PortSet | PortListReference, FieldType(_parse_ports, ref("ports"))] | None = None
    exceptions: Objects | None = declare(None, name="except")


_Scope = Annotated[Mapping, FieldType(scalars.parse_mapping)]


class StatementModel(DocumentModel):
    """A statement in the list of all."""

    id: Id | None = None
    reason: Text | None = None
    never: _Scope | None = None
    always: _Scope | None = None
    only: _Scope | None = None


_List = Annotated[Listing, FieldType(scalars.parse_list)]


class GuardrailsModel(DocumentModel):
    """A file of guardrails."""

    version: Version = values.FORMAT_VERSION
    guardrails: _List | None = None
    never: _List | None = None
    always: _List | None = None
    only: _List | None = None


class _Statement(NamedTuple):
    """A statement as it stands in a file."""

    kind: GuardrailKind
    scope: Field
    guardrail_id: str
    """Empty where the scope has it."""

    reason: str
    refused: Collection[str] = ()
    """The fields next to the scope that already have an error."""


def parse_guardrails(files: Sequence[DocumentFile], limits: Limits) -> tuple[Guardrails, tuple[Problem, ...]]:
    """Return the statements of all files, sorted by id, and the warnings.

    Args:
        files: all files of guardrails.
        limits: the largest accepted documents.

    Raises:
        DocumentError: at least one error; it holds all errors and warnings.
    """
    findings, budget = Findings(limits.problems), Budget(limits=limits)
    found: list[Guardrail] = []
    try:
        for file in sorted(files, key=lambda file: file.name):
            found += _read(file, findings, budget)
    except OverBudgetError:
        raise DocumentError(findings.all()) from None
    _refuse_duplicates(found, findings)
    if findings.has_errors:
        raise DocumentError(findings.all())
    return tuple(sorted(found, key=lambda one: one.guardrail_id)), findings.all()


_NONE = "write guardrails: [], which demands nothing"


def _read(file: DocumentFile, findings: Findings, budget: Budget) -> Iterator[Guardrail]:
    root = read_tree(file, Reading(file=file.name, findings=findings, budget=budget), _NONE)
    for statement in _statements(root) if root is not None else ():
        statement.scope.count_rule()
        guardrail = _guardrail(statement)
        if guardrail is not None:
            yield guardrail


def _statements(root: Field) -> Iterator[_Statement]:
    """Yield the statements of a file, wherever they stand in it."""
    if isinstance(root.node, Listing):
        listed = root
    else:
        model = read_model(GuardrailsModel, root)
        if model is None:
            return
        written = [kind for kind in GuardrailKind if kind.value in root.entries]
        if not written and "guardrails" not in root.entries:
            root.refuse_missing("guardrails", _NONE)
        for kind in written:
            for scope in root.at(kind.value).items():
                yield _Statement(kind, scope, "", "")
        if model.guardrails is None:
            return
        listed = root.at("guardrails")
    for place in listed.items():
        yield from _listed(place)


def _listed(place: Field) -> Iterator[_Statement]:
    """Yield an item of the list of all statements."""
    model = read_model(StatementModel, place)
    if model is None:
        return
    kinds = [kind for kind in GuardrailKind if kind.value in place.entries]
    if len(kinds) != 1:
        message = f"a statement needs one of the three words, found {len(kinds)}"
        words = ", ".join(kind.value for kind in GuardrailKind)
        place.error("bad_statement", message, f"one of {words}, each in a statement of its own")
    elif getattr(model, kinds[0].value) is not None:
        refused = [name for name in _MISSING if name in place.entries and getattr(model, name) is None]
        scope = place.at(kinds[0].value)
        yield _Statement(kinds[0], scope, model.id or "", model.reason or "", refused)


def _guardrail(statement: _Statement) -> Guardrail | None:
    """Return a statement; None, with errors added, if something is wrong with it."""
    kind, place = statement.kind, statement.scope
    findings = place.reading.findings
    before = findings.mark()
    model = read_model(ScopeModel, place)
    if model is None:
        return None
    guardrail_id, reason = statement.guardrail_id or model.id, statement.reason or model.reason
    for name, value in (("id", guardrail_id), ("reason", reason)):
        if not value and name not in (*place.entries, *statement.refused):
            place.refuse_missing(name, f"say {_MISSING[name]}")
    is_ingress = model.direction is not Direction.EGRESS
    far, near = (model.source, model.destination) if is_ingress else (model.destination, model.source)
    if kind is GuardrailKind.ONLY and far is None:
        place.refuse_missing("from" if is_ingress else "to", "who alone may, like [sg-app, 10.0.0.0/8]")
    protocols = _protocols(place, model)
    _check_families(place, far or EVERYTHING, protocols)
    if not guardrail_id or findings.mark()[0] != before[0] or findings.mark()[2] != before[2]:
        return None
    return Guardrail(
        guardrail_id=guardrail_id,
        reason=reason,
        kind=kind,
        direction=model.direction,
        far_ends=far or EVERYTHING,
        near_ends=None if near is None or near == EVERYTHING else near,
        protocols=protocols,
        ports=model.ports or ALL_PORTS,
        exceptions=model.exceptions or (),
        origin=place.origin,
    )


_MISSING = {"id": "what the statement is called, like no-database-from-outside", "reason": "why it is made"}


def _protocols(place: Field, model: ScopeModel) -> Protocols:
    """Return the protocols; where only ports are given, all that have some."""
    if model.protocol is None:
        return PORTED if model.ports not in (None, ALL_PORTS) else (ALL_PROTOCOLS,)
    portless = tuple(one for one in model.protocol if not one.has_ports)
    if portless and model.ports not in (None, ALL_PORTS):
        remedy = f"remove the field, or name {protocols_text(PORTED)} alone"
        place.at("ports").error("ports_do_not_fit", f"{protocols_text(portless)} has no ports", remedy)
    return model.protocol


def _check_families(place: Field, objects: AuthorizationObjects, protocols: Protocols) -> None:
    """Refuse a statement that no packet can match: it would promise nothing."""
    families = {one.only_family for one in protocols}
    if None in families or not all(isinstance(one, CidrBlock) for one in objects):
        return
    if families.isdisjoint(one.family for one in objects if isinstance(one, CidrBlock)):
        message = f"no packet is of {protocols_text(protocols)} and of the family of these addresses"
        place.error("family_of_protocol", message, "icmp for IPv4, icmpv6 for IPv6")


def _refuse_duplicates(found: Sequence[Guardrail], findings: Findings) -> None:
    seen: dict[str, Origin] = {}
    for one in found:
        first = seen.setdefault(one.guardrail_id, one.origin)
        if first is not one.origin:
            message = f"two statements have this id, the other one at {first}"
            findings.add(
                Problem.error(one.origin.at("id"), "duplicate_id", one.guardrail_id, message, "another id")
            )
