"""Path resolution that records each directory look-up.

A watch on a path must cover exactly these look-ups, because somebody may replace symbolic links, and rename,
remove or create directories along the path.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40
"""Symbolic links that are followed; the kernel's own limit."""


@dataclass(frozen=True, slots=True, order=True)
class PathStep:
    """The look-up of one name in a directory."""

    directory: Path
    """Absolute and free of symbolic links."""

    name: str


@dataclass(frozen=True, slots=True)
class PathWalk:
    """The resolution of a path, as far as it succeeds."""

    look_ups: tuple[PathStep, ...]
    """In order; without a target, the last look-up failed."""

    target: Path | None
    """The resolved path, absolute and free of symbolic links; None if it does not exist."""


def follow(path: Path) -> PathWalk:
    """Resolve an absolute path as the kernel does.

    An incomplete path is not an error: its look-ups are the ones to watch for its completion.
    """
    found: list[PathStep] = []
    current, names, links = Path("/"), list(path.parts[1:]), 0
    while names:
        name = names.pop(0)
        if name == "..":
            current = current.parent  # correct because `current` is free of symbolic links
            continue
        found.append(PathStep(current, name))
        try:
            target = (current / name).readlink()
        except OSError as error:
            if error.errno != errno.EINVAL:
                return PathWalk(tuple(found), None)
            current /= name  # EINVAL: the name exists and is not a link
            continue
        links += 1
        if links > _MOST_LINKS:
            return PathWalk(tuple(found), None)
        current /= target.anchor  # "/" for an absolute target, "" for a relative one
        names = [*target.relative_to(target.anchor).parts, *names]
    return PathWalk(tuple(found), current)
