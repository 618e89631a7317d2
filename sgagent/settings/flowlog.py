"""Read who is told of judgements: the table ``[flow_log]``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field as field_of
from pathlib import Path

from sgagent.compiler.counter_chains import LOG_GROUP, RATE_PER_SECOND, SILENT, FlowLogging
from sgagent.core.model import Policy
from sgagent.documents.field import Fields
from sgagent.settings.keys import read_boolean, read_number

_MEBIBYTE = 1 << 20
_LAST_GROUP = (1 << 16) - 1
_KEYS = ("dropped", "accepted", "rate_per_second", "output", "rotate_bytes", "keep_files", "group")
_OUTPUT_FORM = '"none", "journal", "stdout", or the path of a file from / on'


class FlowOutput(enum.Enum):
    """Where flows are written, if not to a file."""

    NONE = "none"
    """The newest drops are remembered all the same, for ``sgagent denied``."""

    JOURNAL = "journal"
    STDOUT = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLogSettings:
    """Of which judgements the kernel tells, and where they are written."""

    dropped: bool = True
    accepted: bool = False
    rate_per_second: int = RATE_PER_SECOND
    """Lines of each rule and default on an interface; what is beyond is counted."""

    output: FlowOutput | Path = FlowOutput.NONE
    rotate_bytes: int = 16 * _MEBIBYTE
    """Size of a file from which on the next is begun."""

    keep_files: int = 4
    """Earlier files that are kept."""

    group: int = LOG_GROUP
    """Of nfnetlink's log; one that nobody else on this host listens to."""

    is_asked_for: bool = field_of(default=False, compare=False)
    """Whether the configuration has the table. Who enforces once and leaves nobody that listens logs only
    then."""

    @property
    def logging(self) -> FlowLogging:
        """Return what the kernel is to tell of."""
        asked = {Policy.DROP: self.dropped, Policy.ACCEPT: self.accepted}
        return FlowLogging(
            verdicts=frozenset(verdict for verdict, is_wanted in asked.items() if is_wanted),
            rate_per_second=self.rate_per_second,
            group=self.group,
        )

    @property
    def logging_without_agent(self) -> FlowLogging:
        """Return what it is to tell of where no agent listens: nothing, unless it is asked for."""
        return self.logging if self.is_asked_for else SILENT


def parse_flow_log(root: Fields) -> FlowLogSettings:
    """Return of which judgements the kernel tells; the defaults where the table is not there."""
    default = FlowLogSettings()
    field = root.get("flow_log")
    table = field.fields() if field else None
    if table is None:
        return default
    table.refuse_unknown(_KEYS)
    output = _output(table)
    accepted = read_boolean(table, "accepted", default=default.accepted)
    if accepted and output is FlowOutput.NONE and (asked := table.get("accepted")):
        asked.error("no_output", "accepted flows are only written down, and there is no output", _OUTPUT_FORM)
    return FlowLogSettings(
        dropped=read_boolean(table, "dropped", default=default.dropped),
        accepted=accepted,
        rate_per_second=read_number(table, "rate_per_second", default.rate_per_second, least=1, most=1000),
        output=output,
        rotate_bytes=read_number(table, "rotate_bytes", default.rotate_bytes, least=1 << 16, most=1 << 32),
        keep_files=read_number(table, "keep_files", default.keep_files, least=0, most=100),
        group=read_number(table, "group", default.group, least=0, most=_LAST_GROUP),
        is_asked_for=True,
    )


def _output(table: Fields) -> FlowOutput | Path:
    """Return where flows are written."""
    field = table.get("output")
    text = field.text() if field else None
    if field is None or text is None:
        return FlowOutput.NONE
    for output in FlowOutput:
        if text == output.value:
            return output
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        field.error("bad_output", "no place for flows", _OUTPUT_FORM)
        return FlowOutput.NONE
    return Path(text)
