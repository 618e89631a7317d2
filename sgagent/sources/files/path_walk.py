"""Say which names in which directories decide what a path leads to.

Whoever wants to know when a path comes to mean something else has to watch exactly these: symbolic links may
be swapped, and directories on the way renamed, removed or made.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40
"""Symbolic links that are followed; the kernel's own limit."""


@dataclass(frozen=True, slots=True, order=True)
class PathStep:
    """A name that is looked up in a directory on the way along a path."""

    directory: Path
    """Absolute and free of symbolic links."""

    name: str


@dataclass(frozen=True, slots=True)
class PathWalk:
    """The way along a path, as far as it goes."""

    look_ups: tuple[PathStep, ...]
    """In order; the last one failed where there is no target."""

    target: Path | None
    """What the path leads to, absolute and free of symbolic links; None where it leads nowhere."""


def follow(path: Path) -> PathWalk:
    """Walk along an absolute path as the kernel would.

    A way that ends in the middle is no error: its look-ups are those that tell when it goes on.
    """
    found: list[PathStep] = []
    current, names, links = Path("/"), list(path.parts[1:]), 0
    while names:
        name = names.pop(0)
        if name == "..":
            current = current.parent  # there are no links in it, so this is where `..` leads
            continue
        found.append(PathStep(current, name))
        try:
            target = (current / name).readlink()
        except OSError as error:
            if error.errno != errno.EINVAL:
                return PathWalk(tuple(found), None)
            current /= name  # EINVAL: there is such a name, and it is no link
            continue
        links += 1
        if links > _MOST_LINKS:
            return PathWalk(tuple(found), None)
        current /= target.anchor  # an absolute target starts at the root again, a relative one goes on here
        names = [*target.relative_to(target.anchor).parts, *names]
    return PathWalk(tuple(found), current)
