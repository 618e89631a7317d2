"""Assembly of the daemon: the part of ``sgagent run`` in the process without privilege."""

from __future__ import annotations

import argparse
import gc
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from sgagent.agent.clock import SystemClock
from sgagent.agent.control.answers import Answering, Dispatcher, answering
from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.control.server import control_served
from sgagent.agent.counters import CounterPoller
from sgagent.agent.daemon import Daemon, longest_step_seconds
from sgagent.agent.doctor import Doctor
from sgagent.agent.entry_sweep import EntrySweep
from sgagent.agent.flowlog.flowlog import begin_flow_log, flows_heard
from sgagent.agent.forgotten_sessions import ForgottenPort, ForgottenSessions
from sgagent.agent.inbox import Inbox, LoopEvent
from sgagent.agent.lockout_hold import LockoutHold, broadcast
from sgagent.agent.log import LogQueue, log_in_background
from sgagent.agent.names.resolver import BackgroundResolver, NameWatch
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.sessions import (
    CutPreview,
    LiveSessions,
    RevokedSessions,
    SessionPort,
    end_forbidden_sessions,
    open_sessions,
)
from sgagent.agent.state.counter_file import CounterFile, read_boot_id
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.state.tables import StandingTable, StandingTableFile
from sgagent.agent.step import EventLog, Step
from sgagent.agent.systemd import ServiceManager, passed_listener
from sgagent.agent.verification import Verification
from sgagent.agent.web.http_server import MetricsServer, ServedMetrics, listen
from sgagent.agent.web.metrics import make_registry
from sgagent.agent.web.page import STATUS_PATHS, Page, health_pages, made_when_asked
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.analysis.doctor.policy_fact import PolicyFact
from sgagent.cli import inputs
from sgagent.cli.configuration import parse_configuration, read_configuration
from sgagent.core.binding import HostFacts
from sgagent.core.errors import ApplierLostError, UsageError
from sgagent.dataplane.dataplane import ApplierDataplane
from sgagent.dataplane.generation import APPLIER_NAME, RulesetChange, RulesetNumber
from sgagent.dataplane.live_sessions import link_towards, list_listeners, sessions_at_listeners
from sgagent.dataplane.privsep import Applier, watching_notices
from sgagent.dataplane.routes import Routes
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import holder_of_port, own_sockets
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.nft.ruleset import Ruleset
from sgagent.ports import GuardrailSource, Observed
from sgagent.settings import Settings
from sgagent.settings.listen_address import ListenAddress
from sgagent.settings.sources import EtcdSourceSettings, SeveralSources
from sgagent.sources.factory import make_source
from sgagent.sources.servers import name_servers


def run_daemon(options: argparse.Namespace, applier: Applier) -> int:
    """Run until a signal ends it.

    Args:
        options: of the command line.
        applier: does what needs privilege, and is waited for by the caller.

    Raises:
        ApplierLostError: the applier has ended or hangs; the rules stay active.
    """
    configuration = read_configuration(options)  # once, as it may be a pipe, or change
    settings = parse_configuration(configuration, options)
    gc.disable()  # a start makes many values and no cycles; the daemon enables it after its first step
    log_queue = log_in_background()
    with _loss_logged(applier), ExitStack() as stack:
        dataplane = ApplierDataplane(applier.channel, mask=settings.enforcement.mark_mask)
        stack.enter_context(closing(dataplane))
        dataplane.refuse_another_owner()
        state = StateDirectory(settings.state.directory)
        state.refuse_unreadable()
        left_table = _take_up(settings, dataplane)
        daemon = _assemble(settings, dataplane, applier.notices, log_queue, stack, left_table=left_table)
        with suppress(OSError):  # the agent reports an unwritable state directory when it keeps definitions
            state.keep_configuration(configuration)
        daemon.run()
        _keep_table(settings, dataplane, daemon.settled_table)
    return 0


@contextmanager
def _loss_logged(applier: Applier) -> Iterator[None]:
    """Log the loss of the applier, with how it ended; no other process of this one could take its place."""
    try:
        yield
    except ApplierLostError as error:
        reason = applier.end_in_words() or str(error)
        log: EventLog = structlog.get_logger()
        log.error(  # noqa: TRY400 - the message says it all
            "applier_lost",
            process_id=applier.pid,
            process_name=APPLIER_NAME,
            reason=reason,
            rules="stay in force",
        )
        message = f"{APPLIER_NAME}, process {applier.pid}, which holds the privilege, is lost: {reason}"
        remedy = "the rules stay active; start the agent again, which starts both"
        raise ApplierLostError(f"{message} ({remedy})") from error


def _take_up(settings: Settings, dataplane: ApplierDataplane) -> StandingTable | None:
    """Take up an earlier agent's table, which is ours from now on; return it if it need not be listed.

    Where nothing is proved in the background, nobody would read the kernel's table later, and it is listed.

    Raises:
        NotPermittedError: the privilege is lacking.
    """
    kept = StandingTableFile(settings.state.directory, read_boot_id()).take()
    if kept is not None and settings.verify.after_apply:
        number = RulesetNumber(kept.namespace, kept.generation)
        if dataplane.take_up(number):
            return kept
    dataplane.observe()
    return None


def _keep_table(settings: Settings, dataplane: ApplierDataplane, settled: Ruleset | None) -> None:
    """Keep the standing table's identity, if the agent put it there, for the next agent."""
    number = None if settled is None else dataplane.ruleset_number()
    if settled is not None and number is not None and dataplane.observe() == Observed(ruleset=settled):
        file = StandingTableFile(settings.state.directory, read_boot_id())
        file.keep(settled, number.namespace, number.generation)


def _assemble(
    settings: Settings,
    dataplane: ApplierDataplane,
    notices: socket.socket,
    log_queue: LogQueue,
    stack: ExitStack,
    *,
    left_table: StandingTable | None,
) -> Daemon:
    """Put the parts together; those that have to be closed go on the stack."""
    log: EventLog = structlog.get_logger()
    clock, inbox, host = SystemClock(), Inbox(), NetlinkHost(dataplane.can_ask_for_groups)
    layout = MarkLayout(settings.enforcement.mark_mask)
    settings, flow_log, flows = begin_flow_log(settings, dataplane, clock, log)
    if flows is not None:
        stack.enter_context(flows_heard(flows, flow_log))
    source = make_source(settings, host)
    state = StateDirectory(settings.state.directory)
    poller = CounterPoller(dataplane, CounterFile(settings.state.directory, read_boot_id()), clock)
    is_verifying = settings.verify.after_apply
    service_manager = ServiceManager()
    published = PublishedStatus(clock, inbox.wait_for_reading, flow_log, log_queue, is_verifying)
    reconciler = Reconciler(
        settings=settings,
        source=source,
        host=host,
        dataplane=dataplane,
        directory=state,
        clock=clock,
        before_enforcing=lambda snapshot: service_manager.extend(longest_step_seconds(snapshot)),
        before_change=published.withdraw_proof,
        before_counters_go=poller.read,
        counters_gone=poller.forget,
        left_table=left_table,
        preview_cuts=CutPreview(log, open_sessions, dataplane.sessions.find_sessions).cuts,
        lockout_hold=LockoutHold(
            seconds=settings.enforcement.hold_lockout_seconds,
            directory=settings.state.directory,
            clock=clock,
            boot_id=read_boot_id(),
            list_sessions=open_sessions,
            find=dataplane.sessions.find_sessions,
            tell=broadcast,
        ),
        name_servers=partial(name_servers, settings.source),
        name_watch=NameWatch(settings, clock, inputs.latest_time(settings), BackgroundResolver()),
        guardrail_source=_guardrail_source(settings),
    )
    sessions = LiveSessions(layout, dataplane.sessions.find_sessions)
    commands = CommandHandler(
        reconciler=reconciler, state=state, clock=clock, boot_id=read_boot_id(), log=log
    )
    examine = partial(_examine, settings, dataplane)
    doctor = Doctor(examine=examine, mark_mask=layout.used_mask, event_log=log)
    dispatcher = Dispatcher(inbox, commands, state)
    answer = answering(published, clock, settings.source.place, sessions, dispatcher, look=doctor.answer)
    published.serving = _metrics_served(settings, published, clock, answer, log)
    stack.enter_context(closing(published.serving))
    stack.enter_context(control_served(settings.state.runtime_directory, answer, log))
    declared = settings.source.sources if isinstance(settings.source, SeveralSources) else (settings.source,)
    for store in declared:
        if isinstance(store, EtcdSourceSettings):
            from sgagent.agent.fleet_report import presence_kept  # noqa: PLC0415 - others do without what it needs

            kept = presence_kept(settings, store, source, lambda: published.status, host.facts)
            stack.enter_context(kept)

    is_kept = settings.enforcement.sessions is Sessions.KEEP
    routes = stack.enter_context(closing(Routes()))
    port = SessionPort(
        find=dataplane.sessions.find_sessions,
        destroy=dataplane.sessions.destroy,
        link_towards=partial(link_towards, routes=routes),
    )
    sweep = EntrySweep(log, clock, dataplane.sessions, layout, routes.link_towards)
    published.sweep = None if is_kept else sweep
    of_revoked = () if is_kept else (RevokedSessions(log, clock, port), sweep)
    restoring = ForgottenPort(
        list_sessions=sessions_at_listeners,
        find=dataplane.sessions.find_sessions,
        link_towards=port.link_towards,
        restore=dataplane.sessions.restore,
    )

    def end_sessions(step: Step) -> None:
        # Conntrack assigns a session that it did not follow to the end that sends next. Refreshing now makes
        # the agent send first on its session to the source.
        if source.endpoints():
            source.refresh()
        if not is_kept:
            end_forbidden_sessions(step, log, port)

    verification = Verification(dataplane.open_listing, layout, log, partial(inbox.put, LoopEvent.NOTHING))
    if is_verifying:
        stack.enter_context(verification.running())
    daemon = Daemon(
        source=source,
        host=host,
        clock=clock,
        commands=commands,
        poller=poller,
        inbox=inbox,
        service_manager=service_manager,
        event_log=log,
        published=published,
        after_first=end_sessions,
        sessions=(*of_revoked, ForgottenSessions(log, clock, restoring)),
        verification=verification,
        doctor=doctor,
    )

    def notify(change: RulesetChange) -> None:
        doctor.notify()
        daemon.drift.notify(change)

    stack.enter_context(doctor.running())
    stack.enter_context(watching_notices(notices, notify, partial(inbox.put, LoopEvent.APPLIER_LOST)))
    return daemon


def _examine(
    settings: Settings, dataplane: ApplierDataplane, policy: PolicyFact, facts: HostFacts
) -> Diagnosis:
    """Return the doctor's findings, from its own thread, by modules that nothing else needs."""
    from sgagent.agent.examination import Examination  # noqa: PLC0415 - a start does not wait for them
    from sgagent.dataplane.kernel_features import owns_by_number  # noqa: PLC0415 - likewise

    examination = Examination(
        settings=settings,
        read_rules=dataplane.read_ruleset,
        own_sockets=own_sockets,
        owns_tables=partial(owns_by_number, os.uname().release),
    )
    return examination.diagnose(policy, facts)


def _guardrail_source(settings: Settings) -> GuardrailSource | None:
    if settings.guardrails.path is None:
        return None
    from sgagent.sources.guardrails import GuardrailFiles  # noqa: PLC0415 - few hosts have some

    return GuardrailFiles.configured(settings)


def _metrics_served(
    settings: Settings, published: PublishedStatus, clock: SystemClock, answer: Answering, log: EventLog
) -> ServedMetrics:
    """Serve the metrics, and the pages beside them, as soon as their address can be had.

    A socket that the service manager passed takes the place of the configured address.
    """
    metrics, passed = settings.metrics, None
    try:
        passed = passed_listener(os.environ, os.getpid())
    except UsageError as error:
        log.error("metrics_socket_refused", reason=str(error))  # noqa: TRY400 - the message says it all
    if passed is not None:
        host, port, *_ = passed.getsockname()
        metrics = replace(metrics, listen=ListenAddress(host=host, port=port))
    at, pages = metrics.listen, dict(health_pages(published))
    if metrics.serves_page:
        make = partial(_status_pages, at.host, settings, published, clock, answer)
        pages |= made_when_asked(STATUS_PATHS, make)

    def open_server() -> MetricsServer:
        return MetricsServer(passed or listen(at.host, at.port), make_registry(published, clock), pages)

    return ServedMetrics(at, open_server, holder_of_port, log)


def _status_pages(
    host: str, settings: Settings, published: PublishedStatus, clock: SystemClock, answer: Answering
) -> Mapping[str, Page]:
    from sgagent.agent.web.inspection import Inspection  # noqa: PLC0415 - most agents are never asked for a page
    from sgagent.agent.web.routes import StatusPages  # noqa: PLC0415 - likewise

    shown = StatusPages(
        published=published,
        answer=answer,
        inspection=Inspection(published, settings, clock, list_listeners),
        clock=clock,
        host_name=socket.gethostname(),
    )
    return shown.by_path(host)
