"""Importer of Terraform states as ``terraform show -json`` prints them, with all modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as MappingOf, Sequence

from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Listing, Mapping, Node
from sgagent.importers.aws_values import entries
from sgagent.importers.context import Gathered, UnreadResource
from sgagent.importers.imported import Imported, import_files
from sgagent.importers.terraform_alibaba import ALIBABA_RESOURCES
from sgagent.importers.terraform_aws import AWS_RESOURCES

RESOURCES: MappingOf[str, Callable[[Fields, Gathered], None]] = {**AWS_RESOURCES, **ALIBABA_RESOURCES}
"""The reader of each resource type."""

_RELATED = ("security_group", "prefix_list", "port_list", "port_range_list")
"""An unread resource whose type contains one of these words gets a note."""


def import_terraform(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return the definitions in Terraform states.

    Raises:
        DocumentError: a file has errors, or no file has anything to import.
    """
    return import_files(files, limits, _read_state)


def _read_state(root: Field, gathered: Gathered) -> None:
    fields = root.fields()
    if fields is None:
        return
    values = fields.filled("values")
    if values is None:
        message = "a plan, not a state" if "planned_values" in fields.names() else "no state in it"
        root.error("not_a_state", message, "what `terraform show -json` prints of the state, after an apply")
        return
    within = values.fields()
    module = within.filled("root_module") if within else None
    if module is not None:
        for resource in _resources(module):
            _read_resource(resource, gathered)


def _resources(module: Field) -> Iterator[Field]:
    """Yield the resources of a module and its child modules; the limits bound the depth."""
    fields = module.fields()
    if fields is not None:
        yield from entries(fields, "resources")
        for child in entries(fields, "child_modules"):
            yield from _resources(child)


def _read_resource(field: Field, gathered: Gathered) -> None:
    """Add a managed resource; skip data sources, which Terraform only looks up."""
    found = field.fields()
    mode = found.filled("mode") if found else None
    if found is None or (mode is not None and mode.word(_MODES) is not True):
        return
    named = field.belonging_to(_text(found, "address") or _text(found, "type") or "a resource")
    resource = named.fields()
    kind = _text(resource, "type") if resource else None
    if resource is None or kind is None:
        found.refuse_missing("type", "the type of the resource")
    elif kind in RESOURCES and not resource.filled("deposed_key"):
        values = resource.require("values")
        within = values.fields() if values else None
        if within is not None:
            RESOURCES[kind](within, gathered)
    else:
        _leave_out(named, kind, gathered)


_MODES = {"managed": True, "data": False}
"""Whether Terraform manages a resource."""


def _leave_out(resource: Field, kind: str, gathered: Gathered) -> None:
    """Add a resource that no importer reads, with the group ids that it names."""
    fields = resource.fields()
    values = fields.get("values") if fields else None
    is_deposed = kind in RESOURCES
    policy = values.node.entries.get("policy") if values and isinstance(values.node, Mapping) else None
    reason = "about to be destroyed (deposed)" if is_deposed else f"{kind} is not read here"
    if policy == "drop":
        remedy = (
            "terraform apply first" if is_deposed else "a resource that is read, or remove it from the file"
        )
        resource.error("lost_drop_rule", f"it drops something: {reason}", remedy)
    names = (
        frozenset(text for text in _texts(values.node) if text.startswith("sg-")) if values else frozenset()
    )
    is_related = is_deposed or any(word in kind for word in _RELATED)
    gathered.unread.append(UnreadResource(resource, reason, names, is_related=is_related))


def _texts(node: Node) -> Iterator[str]:
    """Yield all texts in a value; the limits bound the depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, (Listing, Mapping)):
        for inner in node.items if isinstance(node, Listing) else node.entries.values():
            yield from _texts(inner)


def _text(fields: Fields, name: str) -> str | None:
    found = fields.filled(name)
    return found.text() if found else None
