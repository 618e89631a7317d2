"""Write the man pages: one of the program, one for each command, and those of both formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from release.commandline import Argument, Command, Option, Program, Value
from release.examples import EXAMPLES, PAGES
from release.markdown import Block, CodeBlock, Heading, Paragraph, Table, parse_markdown, section
from release.roff import escaped, guarded, quoted, set_blocks, set_running, set_table, set_term

DOCS = Path(__file__).resolve().parent.parent / "docs"
_OPTION = "option"
"""The head of the tables of options in docs/commands.md, which the parsers know better."""

_EXIT_CODE = "exit code"

_FILES = (
    ("`/etc/sgagent/sgagent.toml`", "the configuration; every key has a default, see **sgagent.toml**(5)"),
    ("`/etc/sgagent/groups.d`", "the documents: security groups and what they are attached to"),
    ("`/var/lib/sgagent`", "the last good definitions, and counters"),
    ("`/run/sgagent/control.sock`", "where the running agent answers"),
)
_ENVIRONMENT = (("`NO_COLOR`", "if set, nothing is coloured, on a terminal either"),)
_PURPOSE = (
    Paragraph(
        "**sgagent** brings cloud security groups to any Linux host: it reads groups, rules and the network"
        " interfaces that they are attached to from documents, compiles them into one nftables table,"
        " `inet sgagent`, and keeps that enforced."
    ),
    Paragraph(
        "A fresh installation enforces nothing: it observes the documents in `/etc/sgagent/groups.d`, until"
        " `sgagent mode enforce`."
        " Before they go there, `sgagent check` says what is wrong with them, and which sessions would end."
        " Rules stay in force when the agent stops; `sgagent flush` takes them out."
    ),
)


def manual_pages(program: Program, date: str) -> Iterator[tuple[str, str]]:
    """Yield the file name and the text of each page."""
    commands = parse_markdown((DOCS / "commands.md").read_text(encoding="utf-8"))
    configuration = parse_markdown((DOCS / "configuration.md").read_text(encoding="utf-8"))
    documents = parse_markdown((DOCS / "documents.md").read_text(encoding="utf-8"))
    version = f"sgagent {program.version}"
    yield "sgagent.1", _page("SGAGENT", "1", date, version, _program(program, commands))
    for command in program.commands:
        lines = _command(program, command, commands)
        yield (
            f"sgagent-{command.name}.1",
            _page(f"SGAGENT-{command.name.upper()}", "1", date, version, lines),
        )
    for name, summary, place, blocks in (
        (
            "sgagent.toml",
            "configuration of the security group agent",
            "/etc/sgagent/sgagent.toml",
            configuration,
        ),
        ("sgagent-documents", "security group documents", "/etc/sgagent/groups.d", documents),
    ):
        lines = _reference(name, summary, place, blocks)
        yield f"{name}.5", _page(name.upper(), "5", date, version, lines)


def _page(title: str, number: str, date: str, version: str, lines: Iterable[str]) -> str:
    head = f'.TH {title} {number} {quoted(date)} {quoted(version)} "Security groups of a host"'
    return "\n".join((*_without_doubled_paragraphs((head, *lines)), ""))


def _without_doubled_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Leave out paragraph breaks behind a heading, where formatters make one anyway."""
    before = ""
    for line in lines:
        if line == ".PP" and before.startswith((".SH", ".SS")):
            continue
        yield line
        before = line


def _program(program: Program, commands: tuple[Block, ...]) -> Iterator[str]:
    yield from (".SH NAME", "sgagent \\- bring cloud security groups to this host")
    yield from (".SH SYNOPSIS", ".B sgagent", "[\\fB\\-\\-config\\fR \\fIFILE\\fR]", "\\fICOMMAND\\fR")
    yield "[\\fIOPTIONS\\fR]"
    yield from (".SH DESCRIPTION", *set_blocks(_PURPOSE))
    yield ".SH COMMANDS"
    for command in program.commands:
        yield from set_term(f"**sgagent-{command.name}**(1)", command.summary)
    yield from _option_list(program.options, {})
    yield from _examples(PAGES["sgagent"])
    yield from _exit_status(commands)
    yield from _ending(f"sgagent-{command.name}(1)" for command in program.commands)


def _command(program: Program, command: Command, commands: tuple[Block, ...]) -> Iterator[str]:
    described = section(commands, f"`sgagent {command.name}`")
    summary = command.summary.removesuffix(".")
    yield ".SH NAME"
    yield f"sgagent\\-{command.name} \\- {escaped(summary[:1].lower() + summary[1:])}"
    yield from (".SH SYNOPSIS", f".B sgagent {command.name}", *_synopsis(command))
    yield ".SH DESCRIPTION"
    text = [block for block in described if not _is_options(block)]
    yield from set_blocks(text or [Paragraph(command.summary)])
    if command.arguments:
        yield ".SH ARGUMENTS"
        for argument in command.arguments:
            yield from set_term(f"*{argument.metavar}*", argument.text or _one_of(argument))
    yield from _option_list(command.options, {**_documented(commands), **_documented(described)})
    yield from _examples(EXAMPLES.get(command.name, ()))
    yield from _exit_status(commands)
    others = (f"sgagent-{other.name}(1)" for other in program.commands if other != command)
    yield from _ending(("sgagent(1)", *others))


def _reference(name: str, summary: str, place: str, blocks: tuple[Block, ...]) -> Iterator[str]:
    """Yield the page of a format, from the document about it."""
    yield from (".SH NAME", f"{escaped(name)} \\- {summary}")
    yield from (".SH SYNOPSIS", f".I {place}", ".SH DESCRIPTION")
    for block in blocks:
        match block:
            case Heading(level=1):
                continue
            case Heading(level=2):
                yield f".SH {quoted(block.text.replace('`', '').replace(' and ', ' AND '))}"
            case Table(header=(subject, "meaning")):
                yield f".SS {quoted(subject[:1].upper() + subject[1:])}"
                yield from set_blocks((block,))
            case _:
                yield from set_blocks((block,))
    yield from _examples(PAGES[name])
    yield from _ending(("sgagent(1)", "sgagent-check(1)", "sgagent-run(1)"))


def _examples(examples: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield ".SH EXAMPLES"
    for text, purpose in examples:
        yield from (".PP", *set_running(purpose), *set_blocks((CodeBlock(text),)))


def _synopsis(command: Command) -> Iterator[str]:
    for argument in command.arguments:
        name = f"\\fI{escaped(argument.metavar)}\\fR"
        yield name if argument.is_required else f"[{name}]"
    for option in command.options:
        if option.names[0] not in ("-h", "--config"):
            form = _form(option)
            yield form if option.is_required else f"[{form}]"


def _form(option: Option) -> str:
    """Return the longest name of an option, with its value."""
    name = f"\\fB{escaped(option.names[-1], is_code=True)}\\fR"
    return name if option.value is Value.NONE else f"{name} \\fI{escaped(option.metavar)}\\fR"


def _option_list(options: Iterable[Option], documented: dict[str, str]) -> Iterator[str]:
    yield ".SH OPTIONS"
    for option in options:
        names = ", ".join(f"\\fB{escaped(name, is_code=True)}\\fR" for name in option.names)
        value = f" \\fI{escaped(option.metavar)}\\fR" if option.metavar else ""
        text = option.text or documented.get(option.names[-1], "")
        yield from (".TP", names + value, *set_running(text or "Needed; see above."))


def _documented(blocks: Iterable[Block]) -> dict[str, str]:
    """Return what tables of options say of each, for what the parser leaves to them."""
    return {
        name.strip("` "): row[1]
        for block in blocks
        if isinstance(block, Table) and block.header[0] == _OPTION
        for row in block.rows
        for name in row[0].split(",")
        if row[1] != "as above"
    }


def _is_options(block: Block) -> bool:
    return isinstance(block, Table) and block.header[0] == _OPTION


def _one_of(argument: Argument) -> str:
    return f"one of {', '.join(argument.choices)}" if argument.choices else "see above"


def _exit_status(commands: tuple[Block, ...]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for block in commands:
        if isinstance(block, Table) and block.header[0] == _EXIT_CODE:
            yield from set_table(block)


def _ending(others: Iterable[str]) -> Iterator[str]:
    """Yield what all pages end with: files, environment, and where to read on."""
    yield ".SH FILES"
    for term, text in _FILES:
        yield from set_term(term, text)
    yield ".SH ENVIRONMENT"
    for term, text in _ENVIRONMENT:
        yield from set_term(term, text)
    yield ".SH SEE ALSO"
    pages = dict.fromkeys((*others, "sgagent.toml(5)", "sgagent-documents(5)", "nft(8)"))
    for page in pages:
        name, _, number = page.partition("(")
        yield f".BR {escaped(name, is_code=True)} ({number}" + ("," if page != "nft(8)" else "")
    yield from (".PP", guarded("The runbook and all other documents are in"), ".IR /usr/share/doc/sgagent .")
