"""The configuration that a command works with."""

from __future__ import annotations

import argparse
from pathlib import Path

from sgagent.cli.main import DEFAULT_CONFIGURATION
from sgagent.core.errors import UsageError
from sgagent.settings import Settings, parse_settings


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
        UsageError: a file that was named is not there, or can't be read.
    """
    path: Path = options.config or DEFAULT_CONFIGURATION
    try:
        return path.read_bytes().decode()  # read_text() would make ends of lines of carriage returns
    except FileNotFoundError:
        if options.config is not None:
            raise UsageError(f"{path}: no such configuration file") from None
        return ""
    except OSError as error:
        raise UsageError(f"{path}: the configuration can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the configuration is not UTF-8 (save the file as UTF-8)") from error
