"""Raw states and plans of Terraform as the state that ``terraform show -json`` would print.

Resources that a plan creates have no ids yet: groups, lists and interfaces get ids made of their addresses.
References to them are followed through variables and outputs of modules, by the plan's configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sgagent.core.errors import DocumentError, Origin, Problem
from sgagent.documents import DocumentFile, Limits

_Json = dict[str, Any]

_RAW_VERSION = 4
_PREFIXES = {"security_group": "sg", "prefix_list": "pl", "network_interface": "eni"}
"""By the end of a resource's type, what ids of its kind begin with."""

_ONE = (
    "security_group_id",
    "source_security_group_id",
    "referenced_security_group_id",
    "prefix_list_id",
    "network_interface_id",
)
_SEVERAL = ("security_groups", "security_group_ids", "prefix_list_ids")
"""Attributes that refer to one resource, and to several.

A plan leaves out what is known only after the apply, or has null for it in a list. A value of null is known.
"""

_INLINE = ("ingress", "egress")
_PEERS = ("security_groups", "prefix_list_ids", "cidr_blocks", "ipv6_cidr_blocks")
"""Attributes of inline rules, all of them lists."""

_REFERENCE = re.compile(r'([a-z0-9_]+\.[A-Za-z0-9_-]+)(?:\["?([^"\]]*)"?\])?(?:\..*)?')
_END_OF_NAME = re.compile(r"[.\[]")
_MOST_STEPS = 16
"""Modules through which a reference leads."""


def shown_state(file: DocumentFile, limits: Limits) -> DocumentFile:
    """Return a raw state or a plan as a shown state; any other file as it is.

    Raises:
        DocumentError: it is the log of ``terraform plan -json``, which has no values.
    """
    if file.content.lstrip()[:10] == b'{"@level":':
        message = "the log of `terraform plan -json`, which has no values"
        remedy = "terraform plan -out=FILE, and what `terraform show -json FILE` prints"
        raise DocumentError([Problem.error(Origin(file=file.name), "not_a_state", None, message, remedy)])
    if len(file.content) > limits.document_bytes:
        return file
    try:
        values = _values(json.loads(file.content))
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError):
        return file  # its reader reports the error
    if values is None:
        return file
    return replace(file, content=json.dumps({"values": values}).encode())


def _values(found: object) -> _Json | None:
    if not isinstance(found, dict) or found.get("values"):
        return None
    if found.get("planned_values"):
        return _Plan.of(found).values
    if found.get("version") == _RAW_VERSION and isinstance(found.get("resources"), list):
        return {"root_module": {"resources": list(_instances(found["resources"]))}}
    return None


def _instances(resources: Iterable[_Json]) -> Iterator[_Json]:
    """Yield the instances of a raw state as resources."""
    for resource in resources:
        name = f"{resource['type']}.{resource['name']}"
        address = f"{resource['module']}.{name}" if resource.get("module") else name
        for instance in resource["instances"]:
            key = instance.get("index_key")
            yield {
                "address": address if key is None else f"{address}[{json.dumps(key)}]",
                "mode": resource["mode"],
                "type": resource["type"],
                "values": instance["attributes"],
                **({"deposed_key": instance["deposed"]} if instance.get("deposed") else {}),
            }


@dataclass(frozen=True)
class _Module:
    """A module of a plan with its configuration."""

    address: str
    """Empty for the root."""

    planned: _Json
    configuration: _Json
    call: _Json = field(default_factory=dict)
    """The expressions of its variables."""

    parent: _Module | None = None

    def children(self) -> Iterator[_Module]:
        """Yield the modules that it calls."""
        calls = self.configuration.get("module_calls", {})
        for child in self.planned.get("child_modules", ()):
            name = child["address"].removeprefix(f"{self.address}.").removeprefix("module.")
            call = calls.get(name.partition("[")[0], {})
            yield _Module(child["address"], child, call.get("module", {}), call.get("expressions", {}), self)

    def resources(self) -> Iterator[_Json]:
        """Yield the resources that Terraform manages."""
        return (one for one in self.planned.get("resources", ()) if one.get("mode") == "managed")


@dataclass(frozen=True)
class _Plan:
    """The planned values, with ids and references filled in."""

    values: _Json
    modules: tuple[_Module, ...]
    ids: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """Ids by index, of the resources by module and name."""

    made: set[str] = field(default_factory=set)
    """Ids of addresses."""

    @classmethod
    def of(cls, plan: _Json) -> _Plan:
        """Fill a plan in."""
        values = plan["planned_values"]
        root = _Module(
            "", values.get("root_module", {}), plan.get("configuration", {}).get("root_module", {})
        )
        made = cls(values, tuple(_all(root)))
        for module in made.modules:
            for resource in module.resources():
                made.name(module, resource)
        for module in made.modules:
            written = {
                f"{one['type']}.{one['name']}": one for one in module.configuration.get("resources", ())
            }
            for resource in module.resources():
                expressions = written.get(_name(resource), {}).get("expressions", {})
                made.refer(module, resource["values"], expressions, _index(resource))
                for name in _INLINE:
                    made.refer_inline(module, resource["values"], expressions, name, _index(resource))
        return made

    def name(self, module: _Module, resource: _Json) -> None:
        """Give a resource that is created an id of its address."""
        kinds = [prefix for end, prefix in _PREFIXES.items() if resource["type"].endswith(end)]
        known = resource["values"].get("id")
        if not known and kinds:
            own = resource["address"].replace(f"{resource['type']}.", "")
            slug = re.sub(r"[^a-z0-9]+", "-", own.replace("module.", "").lower()).strip("-")
            known = f"{kinds[0]}-{slug}"
            while known in self.made:  # as of a_b and a-b
                known += "-2"
            self.made.add(known)
            resource["values"]["id"] = known
        if known:
            self.ids.setdefault((module.address, _name(resource)), {})[_index(resource)] = known

    def refer(self, module: _Module, values: _Json, expressions: _Json, index: str) -> None:
        """Fill in the references that are known only after the apply."""
        for name, expression in expressions.items():
            if name in _ONE and name not in values:
                found = self.followed_all(expression, module, index)
                if len(found) == 1:
                    values[name] = found[0]
            elif name in _SEVERAL and None in (values.get(name, [None]) or ()):
                values[name] = _filled(values, name, self.followed_all(expression, module, index))
                if name != "prefix_list_ids":  # peers of rules, which are named where they are lost
                    values[name] = [*filter(None, values[name])]

    def refer_inline(self, module: _Module, values: _Json, expressions: _Json, way: str, index: str) -> None:
        """Fill in the references of inline rules; null stands for peers that stay unknown.

        A plan leaves out of a rule what is known only after the apply, and has the rules in another order
        than the configuration. So a reference is followed only if one rule has it, and one rule lacks it.
        """
        written = expressions.get(way)
        blocks = written if isinstance(written, list) else []
        for name in _PEERS:
            lacking = [rule for rule in values.get(way) or () if None in (rule.get(name, [None]) or ())]
            references = [block[name] for block in blocks if block.get(name, {}).get("references")]
            is_clear = len(lacking) == len(references) == 1 and name in _SEVERAL
            found = self.followed_all(references[0], module, index) if is_clear else []
            for rule in lacking:
                rule[name] = _filled(rule, name, found)

    def followed_all(self, expression: _Json, module: _Module, index: str) -> list[str]:
        """Return the ids of the resources that an expression refers to, each once.

        The index of the resource that has the expression counts only if the expression names it.
        """
        references = expression.get("references", ())
        names_index = any(one.startswith(("each.", "count.")) for one in references)
        return list(dict.fromkeys(self.followed(references, module, index if names_index else "")))

    def followed(
        self, references: Iterable[str], module: _Module, index: str, steps: int = _MOST_STEPS
    ) -> Iterator[str]:
        """Yield the ids of the resources that references lead to.

        Behind a reference stand the shorter ones that it begins with: they mean nothing more.
        """
        before = ""
        for reference in references if steps else ():
            is_part, before = before.startswith((f"{reference}.", f"{reference}[")), reference
            if is_part:
                continue
            head, _, rest = reference.partition(".")
            if head == "var" and module.parent is not None:
                further = module.call.get(_END_OF_NAME.split(rest)[0], {}).get("references", ())
                yield from self.followed(further, module.parent, index, steps - 1)
            elif head == "module":
                called, _, output = rest.partition(".")
                address = f"{module.address}.module.{called}".lstrip(".")
                for child in self.modules:
                    if child.address == address and output:
                        outputs = child.configuration.get("outputs", {})
                        said = outputs.get(_END_OF_NAME.split(output)[0], {}).get("expression", {})
                        yield from self.followed(said.get("references", ()), child, index, steps - 1)
            elif found := _REFERENCE.fullmatch(reference):
                instances = self.ids.get((module.address, found[1]), {})
                key = found[2] if found[2] is not None else index
                if key in instances:
                    yield instances[key]
                elif len(instances) == 1 and found[2] is None:
                    yield from instances.values()


def _filled(values: _Json, name: str, found: list[str]) -> list[str | None]:
    """Return a list of references with ids for what is unknown in it; null if these are not as many."""
    written = values.get(name, [None] * len(found))
    is_clear = found and len(found) == written.count(None)
    return [*filter(None, written), *(found if is_clear else [None])]


def _all(module: _Module) -> Iterator[_Module]:
    yield module
    for child in module.children():
        yield from _all(child)


def _name(resource: _Json) -> str:
    return f"{resource['type']}.{resource['name']}"


def _index(resource: _Json) -> str:
    return str(resource.get("index", ""))
