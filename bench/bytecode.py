"""Compile the program as the installation of a package does, so that commands start as users have them.

Where Python is told to write no bytecode, as on many machines that build and test, each start would otherwise
compile all modules anew, which takes as long as everything else that a small command does.
"""

from __future__ import annotations

import compileall

from bench.durations import ROOT


def write_bytecode() -> None:
    """Compile changed modules."""
    compileall.compile_dir(ROOT / "sgagent", quiet=1)
