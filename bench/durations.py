"""Measure how long it takes to compile, to apply, to change one thing and to read the counters.

Beside each stands what ``nft`` takes for the same: for the finished text of our ruleset, for a linear one of the same
policy, and for one-element changes on a copy that nobody owns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.linear import TABLE, Order, render_linear
from bench.packetcost import LAYOUT, OURS, compiled_text
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy, MemberGroup
from bench.results import Duration, Spread
from integration.namespaces import Namespace, network_namespace, set_network_namespace
from sgagent.core import names
from sgagent.core.compiler import compile_
from sgagent.core.enforcement import Enforced, enforce
from sgagent.core.marks import first_state
from sgagent.core.model import Direction, Family
from sgagent.core.nfttext import render
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.ruleset import Ruleset
from sgagent.dataplane.nftables import LibnftablesDataplane

_SECONDS = 600.0
NFT_OURS = "nft, our text"
