"""The configuration that a command works with."""

from __future__ import annotations

import argparse
from pathlib import Path

from sgagent.cli.main import DEFAULT_CONFIGURATION
from sgagent.core.errors import UsageError
from sgagent.settings import Settings, parse_settings

_MOST_BYTES = 16 << 20
"""Of a configuration, or a device would fill the memory."""


def load_settings(options: argparse.Namespace) -> Settings:
    """Return the configuration; a default file that is not there is an empty one.

    Raises:
        UsageError: a file that was named is not there, can't be read, or is wrong.
    """
    return parse_configuration(read_configuration(options), options)


def parse_configuration(text: str, options: argparse.Namespace) -> Settings:
    """Return the configuration of a text that was read.

    Raises:
        UsageError: it is wrong.
    """
    return parse_settings(text, str(options.config or DEFAULT_CONFIGURATION))


def read_configuration(options: argparse.Namespace) -> str:
    """Return the text of the configuration; a default file that is not there is an empty one.

    Raises:
        UsageError: a file that was named is not there, can't be read, or is too large.
    """
    path: Path = options.config or DEFAULT_CONFIGURATION
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        if options.config is not None:
            raise UsageError(f"{path}: no such configuration file") from None
        return ""
    except OSError as error:
        raise UsageError(f"{path}: the configuration can't be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path}: more than {_MOST_BYTES >> 20} MiB (name a configuration)")
    try:
        return content.decode()  # text mode would make ends of lines of carriage returns
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the configuration is not UTF-8 (save the file as UTF-8)") from error
