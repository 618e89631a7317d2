"""``sgagent boot``: enforce the last enforced policy, before the network is up and without the source."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import structlog

from sgagent.agent.clock import SystemClock
from sgagent.agent.flowlog.flowlog import in_effect
from sgagent.agent.log import configure_log
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.sessions import SessionPort, end_forbidden_sessions
from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.agent.step import Step, StepEnd, summary
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import add_option
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import KernelRefusedError, SourceUnavailableError, UsageError, printable
from sgagent.dataplane import conntrack, live_sessions
from sgagent.dataplane.dataplane import ApplierDataplane, LibnftablesDataplane
from sgagent.dataplane.privsep import Applier, applier_of_first_life, fork_applier, go_on_without_privilege
from sgagent.host.links import NetlinkHost
from sgagent.nft.marks import Sessions
from sgagent.ports import Clock, Dataplane, Delivery, Host, Wake
from sgagent.settings import Settings, StateSettings, parse_settings
from sgagent.sources.servers import known_endpoints

_ROOT = 0
"""Root keeps its privilege: without, it could not read the state directory, which is the agent's user's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--json", "print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Enforce the kept definitions once; the daemon takes the table over.

    Raises:
        NotPermittedError: a daemon owns the table, and so does better already.
        KernelRefusedError: nothing was changed.
        UsageError: the configuration is wrong; what the one before demands was done, if it could be found.
    """
    applier = applier_of_first_life(os.environ)
    if applier is None and os.geteuid() != _ROOT:
        go_on_without_privilege(fork_applier(owned=False))
    with applier or nullcontext():
        settings, fault = load_last_good_settings(options, StateDirectory(StateSettings().directory))
        configure_log()
        step = _enforce(settings, applier)
    report = {
        "outcome": step.outcome.value,
        "version": step.version,
        "interfaces": [interface.name for interface in step.policy.bound] if step.policy else [],
        "closed": step.is_closed,
    }
    print(json.dumps(report) if options.json else describe(step))
    if fault is not None:
        raise fault
    return 0


def _enforce(settings: Settings, applier: Applier | None) -> Step:
    """Enforce the kept definitions, through the applier if there is one."""
    dataplane: ApplierDataplane | LibnftablesDataplane = (
        LibnftablesDataplane(owned=False)
        if applier is None
        else ApplierDataplane(applier.channel, mask=settings.enforcement.mark_mask)
    )
    with closing(dataplane):
        dataplane.refuse_another_owner()
        settings = in_effect(settings, dataplane)
        state = LastGood(settings.state.directory)
        host = NetlinkHost(dataplane.can_ask_for_groups)
        step = enforce_last_good(settings, host, dataplane, state, SystemClock())
        if step.kernel_error is not None:
            raise KernelRefusedError(step.kernel_error)
        if step.is_first_table and settings.enforcement.sessions is Sessions.REJUDGE:
            port = (
                SessionPort(find=dataplane.sessions.find_sessions, destroy=dataplane.sessions.destroy)
                if isinstance(dataplane, ApplierDataplane)
                else SessionPort(find=conntrack.find_sessions, destroy=live_sessions.destroy)
            )
            end_forbidden_sessions(step, structlog.get_logger(), port)
    return step


def load_last_good_settings(
    options: argparse.Namespace, state: StateDirectory
) -> tuple[Settings, UsageError | None]:
    """Return the configuration; if it is wrong, the one of the last start, and the error.

    Raises:
        UsageError: it is wrong, and there is no other.
    """
    try:
        return load_settings(options), None
    except UsageError as error:
        kept = state.configuration()
        if kept is None:
            raise
        return parse_settings(kept, "the configuration of the last start"), error


def enforce_last_good(
    settings: Settings, host: Host, dataplane: Dataplane, state: StateDirectory, clock: Clock
) -> Step:
    """Do the first step of an agent whose source is out of reach (§9.2)."""
    reconciler = Reconciler(
        settings=settings,
        source=NoSource(known_endpoints(settings)),
        host=host,
        dataplane=dataplane,
        directory=state,
        clock=clock,
        before_counters_go=lambda _: None,
        counters_gone=lambda _: None,
        preview_cuts=lambda *_: (),
    )
    step = reconciler.step(fetch=True)
    for text in (*reconciler.state_faults, *step.problems):
        print(printable(str(text)), file=sys.stderr)
    return step


def describe(step: Step) -> str:
    """Return in one line the policy that is enforced from now on."""
    if step.outcome is StepEnd.WAITING and not step.is_standing:
        return "nothing was ever enforced here: the host stays open until the agent has definitions"
    return summary(step)


class NoSource:
    """A source that is not asked; implements :class:`Source`."""

    def __init__(self, known: tuple[Endpoint, ...]) -> None:
        """Take where it will be asked by an agent that finds this table."""
        self._known = known

    def fetch(self) -> Delivery:
        """Deliver nothing.

        Raises:
            SourceUnavailableError: always.
        """
        raise SourceUnavailableError("the source is not asked before the network is there")

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where it was found last: the agent asks before it makes a table of its own."""
        return self._known

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Do nothing: there is nothing to look at."""
        del wait_seconds
        return True

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Never call ``wake``."""
        del wake
        yield


class LastGood(StateDirectory):
    """A state directory of which nothing is changed: an agent that saw more put the kept files there."""

    is_changed = False

    def keep(self, kept: KeptDocuments) -> None:
        """Leave the kept files as they are."""
        del kept
