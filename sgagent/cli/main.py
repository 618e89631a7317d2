"""The command line: parse it, run one command, and map the outcome to an exit code.

Exit codes: 0 success; 1 the answer is no; 2 wrong use or an invalid document; 3 the kernel refused; 4 the
source can't be reached; 5 not permitted; 70 a fault of sgagent's own; 74 the output can't be written.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from sgagent import __version__
from sgagent.core.errors import (
    DocumentError,
    KernelRefusedError,
    NotPermittedError,
    OutputError,
    SgagentError,
    SourceUnavailableError,
    UsageError,
    printable,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

DEFAULT_CONFIGURATION = Path("/etc/sgagent/sgagent.toml")


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and its needs of the process."""

    summary: str
    module: str = ""
    """Of ``sgagent.cli``, if it is not named as the command."""

    is_lasting: bool = False
    """Whether the command may run without an end, and so collects garbage."""

    ignored: tuple[signal.Signals, ...] = ()
    """Signals that must not end the process before the command handles them."""


COMMANDS = {
    "apply": Command("Enforce documents through the running agent, permanently or on trial until confirmed."),
    "boot": Command("Enforce the last enforced policy before the network is up, without reading the source."),
    "check": Command("Validate documents and configuration; report all problems at once."),
    "clone": Command("Write a copy of a group with new ids."),
    "compile": Command("Print (--dry-run) or apply, once, the ruleset for this host."),
    "confirm": Command("Keep the definitions or the mode that is on trial.", module="control"),
    "denied": Command(
        "Show recently dropped packets, with the rule that decided and with names for addresses.",
        is_lasting=True,
    ),
    "doctor": Command("Find what on this host can bypass, break or be broken by the policy."),
    "explain": Command(
        "Explain the verdict for a packet: the deciding step and rule, and later matching rules."
    ),
    "fleet": Command(
        "Show the state of the hosts that follow an etcd cluster, or wait for them.", is_lasting=True
    ),
    "flush": Command("Remove the rules of sgagent from this host."),
    "graph": Command("Draw which groups and addresses may connect to each other."),
    "history": Command("List the enforced definitions, the newest first.", module="control"),
    "hits": Command("Show the packets that each rule decided, in the order of evaluation.", is_lasting=True),
    "init": Command("Write a first policy and configuration for this host, in observe mode."),
    "import": Command("Convert security groups of a cloud API or of other tools to native documents."),
    "keygen": Command("Create a key to sign documents with."),
    "lint": Command("Find dangerous, ineffective or redundant rules, and suggest fixes."),
    "mode": Command("Override the configured mode: enforce or observe, permanently or on trial."),
    "plan": Command("Show what definitions would change: which traffic opens or closes, and by which rules."),
    "publish": Command("Write documents to the configured etcd cluster."),
    "reload": Command("Have the running agent read its source now, and print the result.", module="control"),
    "rollback": Command("Go back to the definitions that were enforced before.", module="control"),
    "run": Command(
        "Run the agent: keep this host's security groups enforced.", is_lasting=True, ignored=(signal.SIGHUP,)
    ),
    "schema": Command("Print the JSON Schema of native documents."),
    "sign": Command("Sign documents."),
    "status": Command("Show the state of the running agent on one screen."),
    "suggest": Command("Suggest a policy for the traffic that flows, and prove that it admits just that."),
    "test": Command("Run packet tests against policies."),
    "verify": Command(
        "Prove that the kernel's table, or a ruleset, does what the policy says, for every packet."
    ),
}
"""By their names. :func:`find_command` finds their modules."""

_HIDDEN = {"complete": Command("", module="control")}
"""What completions call. No list shows it, nor the message about an unknown command."""

_ALL = COMMANDS | _HIDDEN

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Threshold of the garbage collector. Definitions and rulesets are many small values without cycles, and with
the interpreter's default, collections take as long as all the rest. Short commands disable the collector."""

_FAULT = 70
_INTERRUPTED = 130
_BROKEN_PIPE = 141

_EXIT_CODES: tuple[tuple[type[SgagentError], int], ...] = (
    (UsageError, 2),
    (DocumentError, 2),
    (KernelRefusedError, 3),
    (SourceUnavailableError, 4),
    (NotPermittedError, 5),
    (OutputError, 74),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, by default those of this process; return its exit code."""
    if arguments is None:
        _guard_streams()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may leave it ignored: exit codes are lost
        gc.disable()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 100)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name of a file may be no text, or beyond the encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except SgagentError as error:
        return _report(error)
    except BrokenPipeError:
        _discard_output()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as fault:  # noqa: BLE001 - the outermost frame: a person gets one line, the trace goes to a file
        if isinstance(fault, FileNotFoundError) and _is_directory_gone():
            return _report(UsageError("the working directory does not exist any more: change to another one"))
        return _report_fault(fault)
    if not gc.isenabled():
        gc.freeze()  # or the interpreter would look for cycles once more as it ends
    return code


class _Output(io.FileIO):
    """The file below standard output; its failure is no fault of the code that prints."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some bytes; wait for room also where another program made the file non-blocking.

        Raises:
            BrokenPipeError: the reader has gone.
            OutputError: they can't be written for another reason.
        """
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output()
            raise OutputError(f"the output can't be written: {error.strerror}") from error
        return written


class _Messages(io.FileIO):
    """The file below standard error; a failed write changes no result."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some bytes if that is possible at once."""
        with suppress(OSError):
            written = super().write(data)
            if written is not None:
                return written
        return len(memoryview(data))


def _guard_streams() -> None:
    """Have the standard streams, also those that the caller closed, fail only as :func:`main` expects."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number, which is this one, so that no other file can. Writing to it fails.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _guarded(sys.stdout, _Output(1, "w", closefd=False))
    sys.stderr = _guarded(sys.stderr, _Messages(2, "w", closefd=False))
    sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)


def _guarded(before: TextIO | None, file: io.FileIO) -> io.TextIOWrapper:
    """Return a stream like the one before, which is None if the caller closed it, over a file."""
    encoding = before.encoding if before else "utf-8"
    line_buffering = bool(before and before.line_buffering)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding=encoding, line_buffering=line_buffering)


def _discard_output() -> None:
    """Discard buffered output, or the interpreter would fail to write it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str]) -> int:
    try:
        options = _parse(arguments)
    except SystemExit:  # --help and --version end the process
        sys.stdout.flush()
        raise
    if _ALL[options.command].is_lasting:
        gc.enable()
    _, run = find_command(options.command)
    return run(options)


_Declare = Callable[[argparse.ArgumentParser], None]


def find_command(name: str) -> tuple[_Declare, Callable[[argparse.Namespace], int]]:
    """Import the module of a command, and return the functions that add its options and run it.

    A module that is named as its command has ``add_arguments`` and ``run``. In another, these have the name
    of the command, like ``add_mode_arguments`` and ``run_mode``.
    """
    command = _ALL[name]
    module = import_module(f"sgagent.cli.{command.module or name}")
    if command.module:
        return getattr(module, f"add_{name}_arguments"), getattr(module, f"run_{name}")
    return module.add_arguments, module.run


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; the path of definitions may come last, also behind options.

    ``argparse`` takes an optional argument for absent where options separate it from the argument before.
    """
    hidden = {name: command for name, command in _HIDDEN.items() if name in arguments}
    parser, commands = _make_parsers(COMMANDS | hidden)
    arguments = [f"{one}=" if one in _OPTIONS_THAT_MAY_STAND_ALONE else one for one in arguments]
    options, rest = parser.parse_known_args(arguments)
    if rest and (len(rest) > 1 or rest[0].startswith("-") or "definitions" not in options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if "definitions" in options:
        command = commands[options.command]
        if "" in rest:
            command.error(f"argument PATH: {_EMPTY_PATH}")
        paths = [*filter(None, options.definitions or ()), *map(Path, rest)]  # None for an argument not given
        if len(paths) > 1:
            command.error("the definitions are named twice: give either PATH or --definitions PATH")
        options.definitions = paths[0] if paths else None
    return options


_OPTIONS_THAT_MAY_STAND_ALONE = ("--fix",)
"""Their value follows an equals sign only, or they would take the path of definitions for it."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line with the options of every command, for manual and completions."""
    parser, commands = _make_parsers(COMMANDS)
    for command in commands.values():
        command.declare_options()
    return parser


_BUNDLE = Path(sys.prefix, "share", "bundle")
"""In a bundle it holds the name of that."""


def _version() -> str:
    """Return the running version, and its bundle, if it is a part of one."""
    name = f", {_BUNDLE.read_text(encoding='ascii').strip()}" if _BUNDLE.exists() else ""
    return f"sgagent {__version__}{name}"


def _make_parsers(known: dict[str, Command]) -> tuple[argparse.ArgumentParser, dict[str, _CommandParser]]:
    """Return the parser of the command line, and those of its commands by their names."""
    parser = _Parser(prog="sgagent", description="Bring cloud security groups to this host.")
    parser.add_argument("--version", action="version", version=_version())
    _add_config(parser)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for name, command in known.items():
        shown: dict[str, Any] = {"help": command.summary} if command.summary else {}
        commands.add_parser(name, command=name, description=command.summary or None, **shown)
    return parser, commands.choices


def _add_config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    text = f"the configuration (default: {DEFAULT_CONFIGURATION})"
    parser.add_argument("--config", metavar="FILE", type=Path, default=default, help=text)


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of ending the process, and takes no abbreviations."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # argparse's own parameters, passed through
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        """Raise the error of exit code 2."""
        raise UsageError(f"{message} (see '{self.prog} --help')")


class _CommandParser(_Parser):
    """The parser of a command, which imports the command's module once the command is chosen."""

    def __init__(self, *args: object, command: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._command = command
        self._is_declared = False
        _add_config(self, default=argparse.SUPPRESS)

    def declare_options(self) -> None:
        """Import the command, and add its options, unless that was done."""
        if not self._is_declared:
            self._is_declared = True
            add_arguments, _ = find_command(self._command)
            add_arguments(self)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of what is overridden
        """Parse the arguments after the command's name."""
        for number in _ALL[self._command].ignored:
            signal.signal(number, signal.SIG_IGN)
        self.declare_options()
        return super().parse_known_args(*args, **kwargs)


def add_option(
    parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup,
    shown: str,
    text: str,
    **settings: Any,  # noqa: ANN401 - of argparse
) -> None:
    """Add an option or argument as its command's help shows it.

    ``--json`` is a flag; ``--key FILE`` takes a path, as ``PATH`` does; ``--on NAME`` takes a text.

    Args:
        parser: of the command.
        shown: the name, and what stands for the value.
        text: what it does, in a few words.
        settings: for ``argparse``, where these differ.
    """
    name, _, metavar = shown.partition(" ")
    if metavar:
        settings = {"metavar": metavar, "type": Path if metavar in {"FILE", "PATH"} else str, **settings}
    elif name.startswith("-") and "choices" not in settings:
        settings = {"action": "store_true", **settings}
    parser.add_argument(name, help=text, **settings)


def option_adder(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """Return :func:`add_option` for a parser."""
    return partial(add_option, parser)


def _path(text: str) -> Path:
    """Return a path; an empty one, as of an unset variable of a shell, would be the current directory."""
    if not text:
        raise argparse.ArgumentTypeError(_EMPTY_PATH)
    return Path(text)


_EMPTY_PATH = "expected a path, found an empty text"


def _report(error: SgagentError) -> int:
    """Print an error on standard error and return its exit code."""
    if isinstance(error, DocumentError):
        from sgagent.cli.output import problem_text  # noqa: PLC0415 - as for traces

        for problem in error.problems:
            print(problem_text(problem), file=sys.stderr)
    else:
        for line in str(error).splitlines():
            print(f"sgagent: {printable(line)}", file=sys.stderr)
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), _FAULT)


def _is_directory_gone() -> bool:
    """Return whether the working directory was removed, so that relative paths have no meaning."""
    try:
        os.getcwd()  # noqa: PTH109 - its failure counts, no path
    except FileNotFoundError:
        return True
    return False


def _report_fault(fault: Exception) -> int:
    """Print one line about a fault of our own, and keep its trace if there is room for a file."""
    try:
        trace = f"trace in {_keep_trace(fault)}"
    except OSError as error:
        trace = f"its trace can't be kept: {error.strerror}"
    summary = printable(f"{type(fault).__name__}: {fault}")
    print(f"sgagent: unexpected fault: {summary} ({trace})", file=sys.stderr)
    return _FAULT


def _keep_trace(fault: Exception) -> str:
    """Write the trace of a fault to a temporary file, and return the file's name."""
    import tempfile  # noqa: PLC0415 - nearly as much to load as all of ``--version``, for what should never be
    import traceback  # noqa: PLC0415 - likewise

    with tempfile.NamedTemporaryFile(
        "w", prefix="sgagent-trace-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(fault, file=file)
    return file.name
