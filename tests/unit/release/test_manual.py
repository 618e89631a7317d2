"""The man pages say what the parsers and the documents say."""

from __future__ import annotations

import shlex

import pytest

from release import examples
from release.commandline import Command, describe_program
from release.examples import EXAMPLES
from release.manual import manual_pages
from release.markdown import BulletList, CodeBlock, Heading, Paragraph, Table, parse_markdown, section
from release.roff import escaped, set_blocks
from sgagent.cli.main import COMMANDS, make_parser
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import parse_settings

PROGRAM = describe_program()
PAGES = dict(manual_pages(PROGRAM, "2026-01-02"))


def test_each_command_has_a_page() -> None:
    """Beside the program's own and those of the formats."""
    formats = {"sgagent.toml.5", "sgagent-documents.5"}
    assert set(PAGES) == {"sgagent.1", *formats, *(f"sgagent-{name}.1" for name in COMMANDS)}


@pytest.mark.parametrize("command", PROGRAM.commands, ids=lambda command: command.name)
def test_a_page_names_every_option(command: Command) -> None:
    """Each in the list of options, and each has a text."""
    text = PAGES[f"sgagent-{command.name}.1"]
    options = text.partition(".SH OPTIONS")[2].partition(".SH")[0]
    entries = [entry.strip().split("\n", 1) for entry in options.split(".TP\n")[1:]]
    for option in command.options:
        names = ", ".join(f"\\fB{escaped(name, is_code=True)}\\fR" for name in option.names)
        (entry,) = [entry for entry in entries if entry[0].startswith(names)]
        assert len(entry) == 2, f"{option.names} has no text"
        assert "Needed" not in entry[1] or option.is_required


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_has_its_sections_in_order(name: str) -> None:
    """A reader finds what every page has where it always is."""
    heads = [line[4:].strip('"') for line in PAGES[name].splitlines() if line.startswith(".SH ")]
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "FILES", "SEE ALSO"]
    if name == "sgagent-documents.5":
        wanted = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "The native format",
            "Codes",
            "EXAMPLES",
            "FILES",
            "SEE ALSO",
        ]
    if name == "sgagent.toml.5":
        wanted = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "[source]",
            "[enforcement]",
            "EXAMPLES",
            "FILES",
            "SEE ALSO",
        ]
    assert [head for head in heads if head in wanted] == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_are_valid(command: str) -> None:
    """Each line has the command with arguments that its parser takes."""
    assert command in EXAMPLES, "release/examples.py has no example of this command"
    for line, purpose in EXAMPLES[command]:
        words = shlex.split(line)
        arguments = words[words.index("sgagent") + 1 :]
        if ">" in arguments:
            del arguments[arguments.index(">") :]
        assert make_parser().parse_args(arguments).command == command
        assert purpose.endswith(".")
        assert escaped(purpose) in PAGES[f"sgagent-{command}.1"]


def test_the_examples_of_the_other_pages_are_valid() -> None:
    """Commands that the parser takes, configurations and documents without a problem."""
    for line, _ in examples.PAGES["sgagent"]:
        for words in map(shlex.split, line.split("&&")):
            make_parser().parse_args(words[1:])
    for text, _ in examples.PAGES["sgagent.toml"]:
        parse_settings(text, "sgagent.toml")
    for text, _ in examples.PAGES["sgagent-documents"]:
        assert parse_documents([DocumentFile("web.yaml", text.encode())], Limits())[1] == ()


def test_the_exit_codes_are_those_of_the_document() -> None:
    """Also the ones that stand for two."""
    assert ".TP\n130, 141\ninterrupted; the reader of the output is gone\n" in PAGES["sgagent-run.1"]


def test_the_date_is_the_one_that_was_given() -> None:
    """Nothing in a page depends on when it is made."""
    assert PAGES["sgagent.1"].startswith('.TH SGAGENT 1 "2026-01-02" "sgagent ')


def test_blocks_are_told_apart() -> None:
    """Headings, running text, lists, tables and code, as docs/ has them."""
    text = (
        "# Title\n\nRunning\ntext.\n<!-- nothing -->\n- one\n  more\n- two\n\n"
        "| a | b |\n|---|---|\n| `x\\|y` | |\n\n```sh\n# no heading\n```\n"
    )
    assert parse_markdown(text) == (
        Heading(1, "Title"),
        Paragraph("Running text."),
        BulletList(("one more", "two")),
        Table(("a", "b"), (("`x|y`", ""),)),
        CodeBlock("# no heading"),
    )


def test_a_section_ends_at_the_next_of_its_level() -> None:
    """What is below it belongs to it."""
    blocks = parse_markdown("# T\n\n## A\n\n### B\n\none\n\n## C\n\ntwo\n")
    assert section(blocks, "A") == (Heading(3, "B"), Paragraph("one"))
    assert section(blocks, "missing") == ()


def test_no_text_is_taken_for_a_request() -> None:
    """A line that begins with a dot or a quote is guarded, a backslash is doubled."""
    lines = list(set_blocks([CodeBlock(".TH evil\n'so evil\na\\b")]))
    assert lines[3:6] == ["\\&.TH evil", "\\(aqso evil", "a\\eb"]


def test_links_keep_their_words() -> None:
    """Where they lead is of no use on paper; a document that is only pointed to is left out."""
    (_, line) = set_blocks([Paragraph("See [the log](logging.md), and `x-y` ([service.md](service.md)).")])
    assert line == "See the log, and \\fBx\\-y\\fR."
    (_, line) = set_blocks([Paragraph("[`[[platform]]`](#failsafe-and-platform) and `br-*`.")])
    assert line == "\\fB[[platform]]\\fR and \\fBbr\\-*\\fR."
    assert not [name for name, page in PAGES.items() if "](" in page]
