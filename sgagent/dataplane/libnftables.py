"""The binding to libnftables: run commands, return values and exceptions.

Output is JSON. Input is JSON, or nft's grammar if it is large and every name in it is ours. The library looks
nothing up: input is numeric, DNS is off, and output is as numeric as it can be.

Where user namespaces are allowed, an ordinary user can have the kernel check a text: a new user namespace has
every capability, and a new network namespace in it has no rules.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sgagent.core.errors import KernelRefusedError, UsageError
from sgagent.dataplane.group_rules import without_noise
from sgagent.dataplane.privileges import fork
from sgagent.netlink import NETLINK_NETFILTER, refuse_without_netfilter
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.nft.transactions import Json

_LIBRARY = "libnftables.so.1"
_NO_DNS = 1
"""NFT_CTX_INPUT_NO_DNS of libnftables(3)."""


def open_binding() -> Any:  # noqa: ANN401 - the binding has no types
    """Return a context of libnftables that resolves no host names and supports dry runs.

    Raises:
        UsageError: binding or library are not installed, or are too old.
        KernelRefusedError: this process gets no socket for netfilter.
    """
    refuse_without_netfilter()
    try:
        import nftables  # noqa: PLC0415 - all but the data plane works without

        binding = nftables.Nftables()
        if not hasattr(binding, "set_input_flags"):
            _complete(binding)
    except (ImportError, OSError, AttributeError) as error:
        raise UsageError(f"libnftables can't be used: {error} (install python3-nftables)") from error
    binding.set_input_flags("no-dns")
    return binding


def _complete(binding: Any) -> None:  # noqa: ANN401 - the binding has no types
    """Give a binding that is older than the library the functions that it lacks.

    Raises:
        AttributeError: the library is too old as well.
        OSError: the library can't be loaded.
    """
    context = ctypes.c_void_p(binding._Nftables__ctx)  # noqa: SLF001 - there is no other way to it
    library = ctypes.CDLL(_LIBRARY)
    set_input_flags, set_dry_run_flag = library.nft_ctx_input_set_flags, library.nft_ctx_set_dry_run
    library.nft_ctx_get_dry_run.restype = ctypes.c_bool

    def set_dry_run(is_wanted: bool) -> bool:  # noqa: FBT001 - as the newer binding has it
        before = bool(library.nft_ctx_get_dry_run(context))
        set_dry_run_flag(context, ctypes.c_bool(is_wanted))
        return before

    binding.set_dry_run = set_dry_run
    binding.set_input_flags = lambda _no_dns: set_input_flags(context, ctypes.c_uint(_NO_DNS))


NOT_PERMITTED = "Operation not permitted"
_GUESS = "; did you mean"
"""What libnftables adds where it knows a similar name; it is beside the point more often than not."""

_SMALL_TALK = f"list tables {FAMILY}".encode()


class RefusedError(Exception):
    """Say that libnftables or the kernel refused a command; ``reason`` is its own word for why."""

    def __init__(self, message: str) -> None:
        """Keep the reason that a message of libnftables gives."""
        self.reason = _reason(message)
        super().__init__(self.reason)


def _reason(message: str) -> str:
    """Return the text after the labels of the first line, like ``File exists``."""
    lines = [line for line in message.splitlines() if line.strip()]
    reason = lines[0] if lines else "no reason given"
    for label in ("Error: ", "Could not process rule: "):
        reason = reason.rpartition(label)[2]
    return reason.partition(_GUESS)[0].strip()


class Context:
    """A libnftables context: of the network namespace and for the thread that makes it.

    It keeps one netlink socket for all that it does, and to the kernel that socket is the owner of a table
    that is declared with ``owner``.
    """

    def __init__(self) -> None:
        """Open a context.

        Raises:
            UsageError: binding or library are not installed, or are too old.
            KernelRefusedError: this process gets no socket for netfilter.
        """
        self._others = set(_netlink_ports())
        self._port: int | None = None
        self._is_noisy = False
        """Whether the table may have rules that the library can't read, of which it then prints a line."""

        self._nftables = open_binding()
        self._nftables.set_json_output(True)
        self._nftables.set_numeric_proto_output(True)
        self._nftables.set_numeric_prio_output(True)
        self._nftables.set_numeric_symbol_output(True)

    def introduce(self) -> int | None:
        """Bind the library's netlink socket, and return its port; None if the port can't be determined.

        The kernel gives the first netlink socket that a process uses the process id as its port. Other
        programs identify the owner of a table by that. Call this only with CAP_NET_ADMIN: without it, the
        library prints.
        """
        self._nftables.cmd(_SMALL_TALK)
        self._port = next(iter(set(_netlink_ports()) - self._others), None)
        return self._port

    @contextlib.contextmanager
    def own_socket(self) -> Iterator[socket.socket]:
        """Lend the library's netlink socket, which the kernel takes for the owner of the table.

        Raises:
            OSError: it was not found.
        """
        found = next((one for one in _netlink_sockets() if one.getsockname()[0] == self._port), None)
        if found is None:
            raise OSError(errno.ENOTSOCK, "the socket of libnftables is not to be found")
        self._is_noisy = True
        with found:
            yield found

    def run(self, commands: Json) -> None:
        """Carry out commands in one transaction.

        Raises:
            RefusedError: nothing was done.
        """
        self.load(json.dumps(commands, separators=(",", ":")))

    def load(self, text: str) -> bytes:
        """Carry out commands in nft's own words, in one transaction; return their output.

        Raises:
            RefusedError: nothing was done.
        """
        with without_noise() if self._is_noisy else contextlib.nullcontext():
            status, output, error = self._nftables.cmd(text.encode())
        if status:
            raise RefusedError(error.decode(errors="replace"))
        if error and output:  # what it does not know of a rule, it leaves out
            raise RefusedError(f"libnftables can't show all of it: {_reason(error.decode(errors='replace'))}")
        return bytes(output)

    def accepts(self, commands: Json) -> bool:
        """Return whether the kernel would take the commands now; nothing is done."""
        before = self._nftables.set_dry_run(True)
        try:
            self.run(commands)
        except RefusedError:
            return False
        else:
            return True
        finally:
            self._nftables.set_dry_run(before)

    def forget(self) -> None:
        """Have the library drop its cache of the ruleset.

        After a change it would read it anew anyway; it drops all that as soon as something was only tried.
        """
        self.accepts({"nftables": [{"add": {"table": {"family": FAMILY, "name": TABLE}}}]})


def _netlink_ports() -> Iterator[int]:
    """Yield the ports of the netfilter sockets of this process."""
    for opened in _netlink_sockets():
        with opened:
            yield opened.getsockname()[0]


def _netlink_sockets() -> Iterator[socket.socket]:
    """Yield the netfilter sockets of this process, each by another descriptor, which the caller closes."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                opened = socket.socket(fileno=os.dup(int(entry.name)))
                if opened.family == socket.AF_NETLINK and opened.proto == NETLINK_NETFILTER:
                    yield opened
                else:
                    opened.close()


DONE, REFUSED = b"+", b"-"
_BY_ITS_OWN_FAULT = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}


class WorkerDiedError(Exception):
    """Say that the work was too much for the process that did it, by a fault of its own."""


def guarded(work: Callable[[], bytes], refusal: type[Exception]) -> bytes:
    """Return the bytes that a forked process returns.

    To be called from a process with one thread.

    Args:
        work: what may end a process.
        refusal: what it may raise; is made again here, of its text.

    Raises:
        WorkerDiedError: it did.
        Exception: the refusal, also where the process was killed or ran out of something.
    """
    try:
        reading, writing = socket.socketpair()
        with reading, reading.makefile("rb") as answer:
            with writing:
                pid = fork(lambda: writing.sendall(result_of(work, refusal)))
            text = answer.read()
    except OSError as error:
        raise refusal(f"there can be no process for it: {error.strerror}") from error
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in _BY_ITS_OWN_FAULT:
        raise WorkerDiedError(signal.Signals(-code).name)
    if code or text[:1] not in (DONE, REFUSED):
        raise refusal(f"the process that was to do it has ended with {code}")
    if text[:1] == REFUSED:
        raise refusal(text[1:].decode())
    return text[1:]


def result_of(work: Callable[[], bytes], refusal: type[Exception]) -> bytes:
    """Return :data:`DONE` and the work's result, or :data:`REFUSED` and the text of the refusal."""
    try:
        return DONE + work()
    except refusal as error:
        return REFUSED + str(error).encode()


_SECONDS = 60.0
_SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
"""Where nft is; an ordinary user's search path often leaves it out, and what is printed may not tell."""

_PERSISTENT = "table inet sgagent {\n\tflags persist\n}\n"
_DESTROYING = "destroy table inet sgagent\n"
_UNPRIVILEGED = ("unshare", "--map-root-user", "--net", "--")
_AS_ROOT = ("unshare", "--net", "--")
"""Root needs no user namespace, and without one it may send the kernel transactions of any size."""

_CHECK = ("nft", "--check", "--file", "-")
_TOO_LARGE = "wmem_max"
"""What nft names where an ordinary user may not send the kernel as much at once as a table takes."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The kernel would take the text."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel, or nft, would not."""

    reason: str
    """The output of nft."""


@dataclass(frozen=True, slots=True)
class NotPossible:
    """The kernel could not check the text."""

    reason: str


TextCheck = Accepted | Refused | NotPossible


def check_text(text: str, *, seconds: float = _SECONDS) -> TextCheck:
    """Return the kernel's verdict on a text for ``nft -f -``.

    Args:
        text: the table.
        seconds: how long nft may take.
    """
    try:
        if reason := _not_installed() or _cannot_isolate(_private()):
            return NotPossible(reason)
        done = _run((*_private(), *_CHECK), text, seconds)
    except subprocess.TimeoutExpired:
        return NotPossible(f"nft did not answer within {seconds:g} seconds")
    if done.returncode == 0:
        return Accepted()
    if _TOO_LARGE in (said := _said(done)):
        return NotPossible("the table is larger than an ordinary user may have the kernel check")
    return Refused(said.strip())


def check_group_rules() -> TextCheck:
    """Return whether the kernel takes rules for control groups, which no text holds (ADR 0016)."""
    if reason := _not_installed() or _cannot_isolate(_private()):
        return NotPossible(reason)
    done = _run((*_private(), *_python("group_rules")), "", _SECONDS)
    return Refused(_said(done).strip()) if done.returncode else Accepted()


def _python(module: str) -> tuple[str, ...]:
    """Return the command that runs the main function of a module beside this one."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from sgagent.dataplane.{module} import main; main()"
    return sys.executable, "-I", "-c", program


_LOADED = ("sh", "-c", 'form=$1; shift; nft $form --file - && exec "$@"', "sh")
"""Load what comes from standard input, and print what the kernel made of it."""

_OWNER = re.compile(r"^\s*flags owner(?=\s*;?\s*$)", re.MULTILINE)
"""Of a table that goes with the process that loads it."""

_NO_LINK = "Interface does not exist"


def dump_text(content: bytes, name: str) -> bytes:
    """Return the kernel's programs of a ruleset that somebody wrote.

    It is loaded in a private network namespace.

    Args:
        content: a text for ``nft -f``, or JSON: commands, or a listing.
        name: of the file, for messages.

    Returns:
        Netlink messages about all tables, for :mod:`sgagent.nft.kernel_table`.

    Raises:
        UsageError: it is no ruleset.
        KernelRefusedError: there can be no private namespace here.
    """
    text = content.decode("utf-8", "surrogateescape")
    is_json = text.lstrip().startswith("{")
    text = json.dumps(_loadable(_as_json(text, name))) if is_json else _OWNER.sub("", text)
    if reason := _not_installed() or _cannot_isolate(_private()):
        raise KernelRefusedError(reason, name)
    dump = (*_LOADED, "--json" if is_json else "", *_python("table_dump"))
    done = _run((*_private(), *dump), text, _SECONDS)
    if done.returncode != 0:
        message = _said(done).strip().replace("/dev/stdin:", f"{name}:")
        if _NO_LINK in message:
            message += "\nit is loaded in a namespace without links: write iifname and oifname"
        raise UsageError(f"{name}: nft does not take this ruleset: {message}")
    return done.stdout


def _as_json(text: str, name: str) -> Json:
    """Return decoded JSON that may be a ruleset.

    Raises:
        UsageError: it is none.
    """
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not JSON, though it begins with a brace: {error}") from error
    entries = decoded.get("nftables")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{name}: expected a ruleset like 'nft --json list ruleset' prints it")
    return {"nftables": entries}


_NAMED = {"iif": "iifname", "oif": "oifname", "iface_index": "ifname"}
_OF_THIS_HOST = frozenset({"handle", "index"})


def _loadable(content: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON that loads into an empty ruleset where there are no links, and stays there.

    Links by number become links by name, handles go, and a table is nobody's.
    """
    match content:
        case {"op": _, "left": {"meta": {"key": "iif" | "oif"}}, "right": 0 | "0"}:
            return content  # no link, whatever its name
        case {"key": "iif" | "oif" as key, **others} if not others:
            return {"key": _NAMED[key]}
        case {"table": {"flags": _} as table}:
            flags = [table["flags"]] if isinstance(table["flags"], str) else table["flags"]
            return {"table": {**_loadable(table), "flags": [flag for flag in flags if flag == "dormant"]}}
        case dict():
            return {key: _loadable(value) for key, value in content.items() if key not in _OF_THIS_HOST}
        case list():
            return [_loadable(value) for value in content]
        case "iface_index":
            return _NAMED[content]
        case _:
            return content


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """The features that a text for this host may use."""

    persist: bool
    """Tables that outlive their owner: nft 1.1, Linux 6.9."""

    destroy: bool
    """Removal of what need not be there: nft 1.0.7, Linux 6.3."""


def text_features() -> TextFeatures:
    """Return the features that this host's nft knows, and its kernel if it can be asked."""
    return TextFeatures(persist=_knows(_PERSISTENT), destroy=_knows(_DESTROYING))


def _knows(text: str) -> bool:
    """Return whether nft and, if it can be asked, the kernel take a text."""
    checked = check_text(text)
    return _is_grammatical(text) if isinstance(checked, NotPossible) else isinstance(checked, Accepted)


def _is_grammatical(text: str) -> bool:
    """Return whether nft can read a text; it says so before it finds out that it may not ask the kernel."""
    if _find("nft") is None:
        return False
    errors = _said(_run(_CHECK, text, _SECONDS)).splitlines()
    return not any("Error: " in line and not line.startswith("netlink:") for line in errors)


def _not_installed() -> str | None:
    missing = (program for program in ("unshare", "nft") if _find(program) is None)
    return next((f"{program} is not installed" for program in missing), None)


def _private() -> tuple[str, ...]:
    """Return the command that runs another in private namespaces."""
    return _AS_ROOT if os.geteuid() == 0 else _UNPRIVILEGED


@cache
def _cannot_isolate(private: tuple[str, ...]) -> str | None:
    """Return why a command makes no private namespaces with a working nft; None if it does."""
    done = _run((*private, "nft", "list", "ruleset"), "", _SECONDS)
    if done.returncode == 0:
        return None
    return f"no private namespaces: {_said(done).strip() or 'the host forbids them'}"


def _run(argv: tuple[str, ...], text: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603 - fixed programs; the text goes to standard input
        [_find(word) or word if word in ("unshare", "nft") else word for word in argv],
        input=text.encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=seconds,
        check=False,
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return a program's error output."""
    return done.stderr.decode("utf-8", "replace")


def _find(program: str) -> str | None:
    """Return where a program is."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PROGRAMS}")
