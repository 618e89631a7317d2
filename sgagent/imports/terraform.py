"""Read a Terraform state as ``terraform show -json`` prints it, all modules of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Fields
from sgagent.imports.awsvalues import entries
from sgagent.imports.gathered import Gathered
from sgagent.imports.imported import Imported, import_files
from sgagent.imports.notes import Effect
from sgagent.imports.terraformalibaba import ALIBABA_RESOURCES
from sgagent.imports.terraformaws import AWS_RESOURCES

RESOURCES: Mapping[str, Callable[[Fields, Gathered], None]] = {**AWS_RESOURCES, **ALIBABA_RESOURCES}
"""What reads the values of a resource, by its type."""

_RELATED = ("security_group", "prefix_list", "port_list", "port_range_list")
"""Words in the types of resources that are worth a note where nothing reads them."""


def import_terraform(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return what Terraform states come to.

    Raises:
        DocumentError: something can't be understood, or there is nothing to import.
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
    """Go through the resources of a module and of those that it calls; how deep is bounded by the limits."""
    fields = module.fields()
    if fields is not None:
        yield from entries(fields, "resources")
        for child in entries(fields, "child_modules"):
            yield from _resources(child)


def _read_resource(field: Field, gathered: Gathered) -> None:
    """Take a resource that Terraform manages; what it only looked up is somebody else's."""
    resource = field.fields()
    written = resource.filled("type") if resource else None
    kind = written.text() if written else None
    if resource is None or kind is None or _text(resource, "mode") not in (None, "managed"):
        return
    address = _text(resource, "address") or kind
    if kind in RESOURCES and resource.filled("deposed_key"):
        gathered.notes.add(Effect.LEFT_OUT, field.origin, address, "about to be destroyed (deposed)")
    elif kind in RESOURCES:
        values = field.belonging_to(address).fields()
        written = values.require("values") if values else None
        within = written.fields() if written else None
        if within is not None:
            RESOURCES[kind](within, gathered)
    elif any(word in kind for word in _RELATED):
        gathered.notes.add(Effect.LEFT_OUT, field.origin, address, f"{kind} is not read here")


def _text(fields: Fields, name: str) -> str | None:
    found = fields.filled(name)
    return found.text() if found else None
