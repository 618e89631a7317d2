"""Inputs that commands share: configuration, definitions, the host's links, and the resolved policy."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sgagent.agent.clock import LatestTime, SystemClock
from sgagent.cli.main import add_option
from sgagent.cli.output import problem_text, warn
from sgagent.core.binding import HandBinding, HostFacts, bind, bind_everywhere
from sgagent.core.conditions import LocalFinder
from sgagent.core.endpoints import exempt
from sgagent.core.errors import (
    DocumentError,
    Origin,
    Problem,
    Severity,
    Slips,
    SourceUnavailableError,
    UsageError,
    in_order,
    nearest,
)
from sgagent.core.expected_links import ExpectedLink, bind_expected
from sgagent.core.lockout import CutSession, LiveSession, NamedCut, named
from sgagent.core.memo import Memo
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions, Resolution, Scope, dns_names, resolve
from sgagent.core.resolved_rules import OF_UNKNOWN_OBJECTS, OF_UNKNOWN_USERS, UNRESOLVED_NAME
from sgagent.documents import DocumentFile, RefusedDocumentsError
from sgagent.documents.parse import with_key_lines
from sgagent.documents.scalars import InvalidValueError
from sgagent.documents.values import parse_instant
from sgagent.host.links import NetlinkHost
from sgagent.host.units import find_unit
from sgagent.host.users import find_user
from sgagent.ports import Delivery
from sgagent.settings import Settings, parse_interface_name
from sgagent.settings.tables import SPAN_FORM, UnboundInterfaces, parse_span
from sgagent.signatures import Signed
from sgagent.sources.factory import make_source
from sgagent.sources.files.reader import UnreadableFileError
from sgagent.sources.files.source import FileSource
from sgagent.sources.servers import dns_endpoints, host_name_servers, known_endpoints
from sgagent.sources.verified_parse import VerifiedParser, read_signature

if TYPE_CHECKING:
    from sgagent.agent.names.resolver import DnsAnswers


def add_definitions_arguments(
    parser: argparse.ArgumentParser, *, instead: str = ", instead of the configured source"
) -> None:
    """Add PATH as the last argument, and ``--definitions PATH``, which means the same."""
    text = f"a file or directory of documents{instead}"
    add_option(parser, "definitions PATH", text, nargs="?", action="append")
    add_option(parser, "--definitions PATH", "the same as PATH", action="append")


def required_definitions(options: argparse.Namespace) -> Path:
    """Return the path of definitions on the command line.

    Raises:
        UsageError: there is none.
    """
    path: Path | None = options.definitions
    if path is None:
        raise UsageError("PATH is missing: name a file or directory of documents")
    return path


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose definitions and the interfaces they are bound to."""
    add_definitions_arguments(parser)
    add_interface_argument(parser)
    add_option(parser, "--strict", "treat warnings as errors")


def add_interface_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--interface NAME=GROUP[,GROUP…]``."""
    text = "bind this link to groups, and no other link; NAME= binds it to none; repeatable"
    add_option(parser, "--interface NAME=GROUP[,GROUP…]", text, action="append", default=[])


def add_time_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--at TIME``."""
    text = "as if this were the latest time that is known, like 2026-12-31T18:00:00+01:00"
    add_option(parser, "--at TIME", text, type=_instant)


def add_dns_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-dns``."""
    add_option(parser, "--no-dns", "ask no name server: names have the addresses that the agent knows")


def dns_answers(settings: Settings, options: argparse.Namespace | None = None) -> DnsAnswers:
    """Return the addresses of names; name servers are asked if the options are given and allow it."""
    from sgagent.agent.names.resolver import DnsAnswers  # noqa: PLC0415 - offline commands do without

    is_asked = options is not None and not options.no_dns
    return DnsAnswers(settings, SystemClock(), latest_time(settings), is_asked=is_asked)


def _instant(text: str) -> datetime:
    """Return the instant that an argument is, for the parser.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return parse_instant(text)
    except InvalidValueError as error:
        fault = error.faults[0]
        raise argparse.ArgumentTypeError(f"{text}: {fault.message} ({fault.remedy})") from None


def latest_time(settings: Settings) -> datetime:
    """Return the latest time that this host has known, as far as the state can be read (§12.4)."""
    return LatestTime(settings.state.directory, SystemClock(), is_kept=False).now()


def whole_number(text: str) -> int:
    """Return the number that an argument is, for the parser.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text}")
    return int(text)


def span(text: str) -> float:
    """Return the seconds of an argument like ``30d``, for the parser.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    seconds = parse_span(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"not a duration: {text} ({SPAN_FORM})")
    return seconds


def short_time(text: str) -> float:
    """Return the seconds of an argument like ``10m``, for the parser.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    seconds = parse_short_time(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text} is no time, like 90s, 10m or 1h")
    return float(seconds)


def parse_short_time(text: str) -> int | None:
    """Return the seconds of a text like ``90``, ``90s``, ``5m`` or ``1h``; None if it is none."""
    found = _SHORT_TIME.fullmatch(text)
    return int(found[1]) * {"m": 60, "h": 3600}.get(found[2], 1) if found else None


_SHORT_TIME = re.compile(r"([0-9]{1,6})(s|m|h|)")


def read_bounded(path: Path, most: int, what: str = "it") -> bytes:
    """Return so many bytes of a file, which may be a pipe or device, or all that there are.

    Args:
        path: of the file.
        most: how many bytes are read at most.
        what: what it holds, for the message.

    Raises:
        UsageError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise UsageError(f"{path}: {what} can't be read: {error.strerror}") from error


def read_standard_input(most: int, what: str = "it") -> bytes:
    """Return so many bytes of standard input, which may be a socket, as :func:`read_bounded` does."""
    try:
        return sys.stdin.buffer.read(most)
    except OSError as error:
        raise UsageError(f"<stdin>: {what} can't be read: {error.strerror}") from error


UNNAMED = "unnamed"
"""What definitions are called of which only the policy counts: to name them by a digest takes a moment."""


def read_policy(
    settings: Settings,
    options: argparse.Namespace,
    *,
    scope: Scope = Scope.HOST,
    keep: Callable[[Resolution, Delivery], Resolution] = lambda resolution, _: resolution,
    read: Callable[[], Delivery] | None = None,
) -> Resolution:
    """Return the resolved policy of the chosen definitions for this host, with all problems.

    Args:
        settings: the configuration.
        options: which definitions and bindings are meant, whether name servers are asked, and maybe ``--at``.
        scope: whose errors of meaning count.
        keep: returns the resolution with what breaks guardrails (§13.4).
        read: reads the definitions, where the caller wants them, too.

    Raises:
        UsageError: the path on the command line does not exist.
        SourceUnavailableError: the configured source can't be reached.
        DocumentError: the documents have errors of form; the error also lists errors of meaning.
    """
    try:
        delivery = read() if read else fetch(settings, options.definitions, UNNAMED)
    except RefusedDocumentsError as error:
        readable = Delivery(snapshot=error.readable, documents=error.documents)
        missing = _CODES_OF_MISSING_OBJECTS if error.has_left_out else ()
        known = {(problem.origin.file, problem.origin.path) for problem in error.problems}
        of_meaning = (
            problem
            for problem in resolve_for_host(settings, readable, options.interface, scope=scope).errors
            if problem.code not in missing and (problem.origin.file, problem.origin.path) not in known
        )
        raise DocumentError((*error.problems, *of_meaning)) from None
    at = vars(options).get("at")
    resolve_ = partial(resolve_for_host, settings, delivery, options.interface, scope=scope, at=at)
    found = resolve_()
    if found.dns_names:  # few rules name any
        found = resolve_(dns=dns_answers(settings, options))
    return keep(found, delivery)


_CODES_OF_MISSING_OBJECTS = frozenset(
    {"dangling_attachment", "unknown_object", "unknown_object_in_drop", "unknown_network_interface"}
)


def fetch(
    settings: Settings, definitions: Path | None, version: str | None = None, memo: Memo | None = None
) -> Delivery:
    """Return the definitions of the path on the command line, or of the configured source.

    Args:
        settings: of the source.
        definitions: the path on the command line; None is the configured source.
        version: the name of the version at that path; None names it by its digest.
        memo: the parsed documents, to save work; the result is the same without.

    Raises:
        UsageError: the path on the command line does not exist.
        SourceUnavailableError: the configured source can't be reached.
        DocumentError: the documents have errors.
    """
    if definitions is None:
        return make_source(settings, read_kept=_read_kept, memo=memo).fetch()
    parser = VerifiedParser(settings.limits, version=version, memo=memo or Memo())
    with _errors_of_path():
        return FileSource(definitions, settings.limits, parser).fetch()


def read_files(settings: Settings, definitions: Path) -> tuple[DocumentFile, ...]:
    """Return the documents at the path on the command line, unparsed.

    Raises:
        UsageError: the path does not exist.
        DocumentError: they are no regular files, or too large.
    """
    with _errors_of_path():
        return FileSource(definitions, settings.limits).read_documents()


@contextmanager
def _errors_of_path() -> Iterator[None]:
    """Translate why the path on the command line delivers nothing: what can't be read is a wrong document."""
    try:
        yield
    except UnreadableFileError as error:
        raise error.refusal() from error
    except SourceUnavailableError as error:
        raise UsageError(str(error)) from error


def _read_kept(path: Path) -> Signed | None:
    """Return the signature in a file of the state directory; None for who may not know.

    Raises:
        OSError: it can't be read for another reason.
        ValueError: it is damaged.
    """
    try:
        return read_signature(path)
    except PermissionError:
        return None


def hand_bindings(arguments: Iterable[str]) -> tuple[HandBinding, ...]:
    """Return the bindings that ``--interface`` makes.

    Raises:
        UsageError: an argument is not ``NAME=GROUP[,GROUP…]``.
    """
    bindings = []
    for argument in arguments:
        name, equals, groups = argument.partition("=")
        if not equals or (groups and not all(groups.split(","))):
            raise UsageError(f"--interface {argument}: expected NAME=GROUP[,GROUP…], or NAME= for no group")
        ids = tuple(sorted(set(groups.split(",")))) if groups else ()
        origin = f"--interface {argument}"
        name = parse_interface_name(name, origin)
        bindings.append(HandBinding(interface=name, security_group_ids=ids, origin=Origin(file=origin)))
    return tuple(bindings)


def resolve_for_host(
    settings: Settings,
    delivery: Delivery,
    interfaces: Iterable[str],
    *,
    scope: Scope = Scope.HOST,
    at: datetime | None = None,
    dns: DnsAnswers | None = None,
    memo: Memo | None = None,
    expected: Iterable[ExpectedLink] = (),
    is_followed: bool = False,
) -> Resolution:
    """Resolve the definitions on this host; all problems included.

    Args:
        settings: the configuration.
        delivery: the definitions.
        interfaces: ``--interface`` arguments; if there are any, nothing else is bound. What becomes of
            invalid packets is as the configuration says of a link or pattern of that name.
        scope: whose errors of meaning count.
        at: the latest time; None is the one that this host has known.
        dns: what names stand for; None where they are no problem, as of documents for other hosts.
        memo: of what was resolved before, to spare work; the result is the same without.
        expected: on which links the agent expects network interfaces that it has not found yet (§9.3).
        is_followed: whether an agent identifies links that come (§9.5).
    """
    invalid = {one.interface: one.invalid for one in settings.interfaces}
    by_hand = tuple(
        replace(one, invalid=invalid.get(one.interface, one.invalid)) for one in hand_bindings(interfaces)
    )
    try:
        facts = NetlinkHost().facts()
    except OSError:
        if not by_hand:
            raise
        facts = HostFacts(
            find_local=LocalFinder(find_user, find_unit)
        )  # what is bound by hand need not exist
    found = bind(delivery.snapshot, by_hand or settings.interfaces, facts, automatically=not by_hand)
    found = replace(found, is_followed=is_followed)
    resolve_ = partial(
        resolve,
        delivery.snapshot,
        bind_expected(found, expected, delivery.snapshot, facts),
        exemptions(settings),
        default_mode=settings.enforcement.mode,
        source_check=settings.enforcement.source_check,
        unbound_closed=settings.enforcement.unbound_interfaces is UnboundInterfaces.CLOSED,
        scope=scope,
        at=at or latest_time(settings),
        memo=memo,
    )
    resolution = resolve_()
    if dns is not None and resolution.dns_names:
        names = dns.of(resolution.dns_names, facts)
        resolution = resolve_(names=names.addresses)
        warnings = names.warnings_of(resolution.dns_names)
        resolution = replace(resolution, problems=(*resolution.problems, *warnings))
    return with_all_problems(resolution, delivery, settings, scope)


def resolve_everywhere(
    settings: Settings,
    delivery: Delivery,
    memo: Memo | None = None,
    *,
    at: datetime | None = None,
    dns: DnsAnswers | None = None,
) -> Resolution:
    """Resolve definitions on every network interface that they name, wherever it is.

    Each is judged as if it were a link of this host, by the name of its id. All errors of meaning count.
    """
    names = dns.of(dns_names(delivery.snapshot), HostFacts()).addresses if dns else None
    resolution = resolve(
        delivery.snapshot,
        bind_everywhere(delivery.snapshot),
        exemptions(settings),
        default_mode=settings.enforcement.mode,
        source_check=settings.enforcement.source_check,
        scope=Scope.EVERYTHING,
        at=at or latest_time(settings),
        names=names,
        memo=memo,
    )
    return with_all_problems(resolution, delivery, settings, Scope.HOST)


def with_all_problems(
    resolution: Resolution, delivery: Delivery, settings: Settings, scope: Scope
) -> Resolution:
    """Return a resolution with the problems of the documents, too, and with help for those of its own."""
    own = _suggest(resolution.problems, delivery.snapshot, is_whole=scope is Scope.EVERYTHING)
    found = with_key_lines(own, delivery.documents, settings.limits)
    return replace(resolution, problems=(*delivery.problems, *found))


_MOST_COMPARISONS = 20_000
"""Of ids that are alike in many letters: each takes a moment."""


def _suggest(problems: Iterable[Problem], snapshot: Snapshot, *, is_whole: bool) -> Iterator[Problem]:
    """Yield the problems; those of unknown objects with the ids that were probably meant.

    Where the documents are looked at as a whole, an id that is one slip away from one of theirs is an error:
    what belongs to somebody else has another id.
    """
    room, slips = _MOST_COMPARISONS, cache(lambda kind: Slips(getattr(snapshot, kind)))
    for problem in problems:
        name = problem.value or ""
        if problem.code not in _OF_WRONG_IDS or "/" in name:
            yield problem
            continue
        kind = _kind_of_object(problem)
        known = getattr(snapshot, kind)
        mistyped = slips(kind).of(name)
        room -= len(known)
        meant = mistyped or (nearest(name, known, _FEW_SUGGESTIONS) if room > 0 else ())
        remedy = f"did you mean {' or '.join(meant)}? Otherwise {problem.remedy}" if meant else problem.remedy
        severity = Severity.ERROR if is_whole and mistyped else problem.severity
        yield replace(problem, remedy=remedy, severity=severity)


_FEW_SUGGESTIONS = 3
_OF_WRONG_IDS = {*OF_UNKNOWN_OBJECTS, "dangling_attachment"} - {UNRESOLVED_NAME, *OF_UNKNOWN_USERS}


def _kind_of_object(problem: Problem) -> str:
    """Return the attribute of snapshots with the objects that could stand where an unknown one stands."""
    if problem.origin.path.endswith("port_list_id"):
        return "port_list_by_id"
    return "prefix_list_by_id" if (problem.value or "").startswith("pl-") else "group_by_id"


def preview_cuts(
    find: Callable[[HostFacts, Iterable[LiveSession]], Iterable[CutSession]],
) -> tuple[NamedCut, ...]:
    """Return which open sessions at listeners, and of an agent to others, a policy would cut (§7.4).

    Args:
        find: picks them of the sessions of this host.
    """
    from sgagent.agent import sessions  # noqa: PLC0415 - few commands look at sessions
    from sgagent.dataplane.conntrack import find_sessions  # noqa: PLC0415 - likewise

    try:
        open_now = sessions.on_the_wire(sessions.open_sessions_of_agents_too(), find_sessions)
        return tuple(map(named, find(NetlinkHost().facts(), open_now)))
    except OSError as error:
        warn(f"open sessions can't be listed: {error.strerror}")
        return ()


def exemptions(settings: Settings) -> Exemptions:
    """Return the traffic that no group can block, as for the agent: lists, the way to the source (§7.4)."""
    failsafe = (*settings.failsafe, *exempt(known_endpoints(settings)))
    name_servers = exempt(dns_endpoints(settings.dns.servers or host_name_servers()))
    return Exemptions(platform=settings.platform, failsafe=failsafe, name_servers=name_servers)


def accept_or_refuse(problems: Iterable[Problem], settings: Settings, options: argparse.Namespace) -> None:
    """Print warnings, in the order of files and lines; raise if there are errors.

    Raises:
        DocumentError: a problem is an error, or configuration or ``--strict`` makes it one.
    """
    problems = in_order(problems)
    if options.strict or settings.enforcement.strict:
        problems = tuple(replace(problem, severity=Severity.ERROR) for problem in problems)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise DocumentError(problems)
    for problem in problems:
        print(problem_text(problem), file=sys.stderr)
