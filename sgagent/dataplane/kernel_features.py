"""The features of kernel and nft that sgagent uses: probed in a private network, changing nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.errors import KernelRefusedError, UsageError
from sgagent.dataplane.libnftables import (
    Accepted,
    NotPossible,
    Refused,
    TextCheck,
    check_group_rules,
    check_text,
    open_binding,
)
from sgagent.dataplane.table import kernel_number

_UNKNOWN_TO_NFT = ("syntax error", "has no type", "unknown", "datatype mismatch")


class Lack(enum.Enum):
    """Who does not know a feature."""

    KERNEL = "kernel"
    NFT = "nft"


@dataclass(frozen=True, slots=True)
class KernelFeature:
    """Something that newer kernels and newer versions of nft can do."""

    name: str
    text: str | None
    """The text that nft is asked to check; None for rules for control groups, which nft can't write."""

    consequence: str
    """Where it is missing."""

    is_needed: bool = False
    """Whether nothing is enforced without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedFeature:
    """A feature, and whether it is there."""

    feature: KernelFeature
    is_there: bool | None
    """None where it could not be tried."""

    lack: Lack | None = None
    reason: str = ""
    """The answer of nft or the kernel, on one line."""


def _chain(rule: str) -> str:
    return _table(f"chain tried {{\n\t\t{rule}\n\t}}")


def _table(content: str) -> str:
    return f"table inet sgagent {{\n\t{content}\n}}\n"


FEATURES = (
    KernelFeature("nf_tables", _table(""), "nothing can be enforced", is_needed=True),
    KernelFeature(
        "session_tuples",
        _chain("ct original proto-dst 22 ct mark set ct mark | 0x00010000"),
        "sessions can't be judged again",
        is_needed=True,
    ),
    KernelFeature(
        "concatenated_ranges",
        _table("map tried {\n\t\ttypeof ip saddr . th dport : verdict\n\t\tflags interval\n\t}"),
        "rules for ranges of addresses and ports can't be loaded",
        is_needed=True,
    ),
    KernelFeature("log", _chain('log prefix "tried" group 9469'), "there is no flow log"),
    KernelFeature(
        "destroy", "destroy table inet sgagent\n", "a table is replaced by an add and a delete, in one step"
    ),
    KernelFeature(
        "owner",
        _table("flags owner"),
        "every process with CAP_NET_ADMIN can change the table; the agent restores it within about a second",
    ),
    KernelFeature(
        "persist",
        _table("flags owner, persist"),
        "the table has no owner, as with one it would not outlive the agent: every process with CAP_NET_ADMIN"
        " can change it; the agent restores it within about a second",
    ),
    KernelFeature(
        "control_groups",
        None,
        "no rules for units (modules nft_compat, xt_cgroup): accept rules for one match nothing, drop rules"
        " refuse the documents",
    ),
)


_FIRST_WITH_PERSIST = (6, 9)


def owns_by_number(release: str) -> bool | None:
    """Return False for a kernel whose number is below the first that knows tables that outlive their owner.

    None for others, and for all that took such a table nobody needs to ask.
    """
    number = kernel_number(release)
    return False if number is not None and number < _FIRST_WITH_PERSIST else None


def probe_features() -> Iterator[ProbedFeature]:
    """Yield each feature with the result of trying it."""
    for feature in FEATURES:
        yield probed(feature, check_group_rules() if feature.text is None else check_text(feature.text))


def probed(feature: KernelFeature, found: TextCheck) -> ProbedFeature:
    """Return the feature as a check of its text found it."""
    match found:
        case Accepted():
            return ProbedFeature(feature=feature, is_there=True)
        case NotPossible(reason=reason):
            return ProbedFeature(feature=feature, is_there=None, reason=reason)
        case Refused(reason=reason):
            said = reason.splitlines()[0] if reason else ""
            lack = Lack.NFT if any(word in said for word in _UNKNOWN_TO_NFT) else Lack.KERNEL
            return ProbedFeature(feature=feature, is_there=False, lack=lack, reason=said)


def library_fault() -> str | None:
    """Return why libnftables can't be used."""
    try:
        open_binding()
    except (KernelRefusedError, UsageError) as error:
        return str(error)
    return None
