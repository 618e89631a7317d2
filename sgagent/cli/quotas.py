"""Quotas of the cloud in the output of ``sgagent check``."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator

from sgagent.core.cloud_quotas import CloudLimit, QuotaUse, quota_uses
from sgagent.core.errors import Problem
from sgagent.core.model import Snapshot

_CODES = {
    CloudLimit.RULES_PER_INTERFACE: "many_rules",
    CloudLimit.GROUPS_PER_INTERFACE: "many_groups",
    CloudLimit.GROUP_OBJECTS_PER_GROUP: "many_group_objects",
    CloudLimit.ADDRESSES_PER_BASIC_GROUP: "many_addresses",
}
_REMEDIES = {
    CloudLimit.RULES_PER_INTERFACE: "name fewer and shorter lists, or fewer objects and ports in one rule",
    CloudLimit.GROUPS_PER_INTERFACE: "attach fewer groups",
    CloudLimit.GROUP_OBJECTS_PER_GROUP: "use prefix lists",
    CloudLimit.ADDRESSES_PER_BASIC_GROUP: "use an advanced group, or several groups",
}
_MOST_SHOWN = 10


def words(use: QuotaUse) -> str:
    """Return a use in words: ``eni-1: 1100 of 1000 rules per interface``."""
    return f"{use.object_id}: {use.used} of {use.most} {use.limit.value.replace('_', ' ')}"


def over_quota(snapshot: Snapshot, reported: Container[str]) -> Iterator[Problem]:
    """Yield a warning for each use that the cloud would refuse, without the codes already reported."""
    for use in quota_uses(snapshot):
        code = _CODES[use.limit]
        if use.used > use.most and code not in reported:
            message = f"{words(use)}, which the cloud would refuse"
            yield Problem.warning(use.origin, code, str(use.used), message, _REMEDIES[use.limit])


def quota_as_json(use: QuotaUse) -> dict[str, object]:
    """Return a use as the object that scripts read."""
    return {
        "limit": use.limit.value,
        "object_id": use.object_id,
        "used": use.used,
        "most": use.most,
        "ratio": round(use.ratio, 4),
    }


def quota_lines(uses: Iterable[QuotaUse]) -> list[str]:
    """Return the uses that are nearest to their limits, for people."""
    nearest = sorted(uses, key=lambda use: (-use.ratio, use.limit.value, use.object_id))
    return [f"quota: {words(use)} ({math.ceil(100 * use.ratio)}%)" for use in nearest[:_MOST_SHOWN]]
