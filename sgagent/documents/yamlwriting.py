"""Write documents as people keep them: YAML that our own reader, and any of YAML 1.1 or 1.2, reads alike."""

from __future__ import annotations

import yaml

from sgagent.documents.characters import escape_bidirectional, is_ambiguous
from sgagent.documents.writing import Native

_WIDTH = 120


def as_yaml(native: Native) -> str:
    """Return the text of a document; fields stand in the order in which they are given."""
    text = yaml.dump(
        native, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False
    )
    return escape_bidirectional(text)


class _Dumper(yaml.SafeDumper):
    """Write lists of plain texts on one line, and no anchors, so that each rule says what it does."""

    def ignore_aliases(self, data: object) -> bool:
        """Write everything out, also what is the same."""
        del data
        return True

    def represent_plain_list(self, items: list[object]) -> yaml.Node:
        """Keep a short list of texts together."""
        is_short = len(items) <= _MOST_ON_A_LINE and all(isinstance(item, str) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short)

    def represent_text(self, text: str) -> yaml.Node:
        """Put between double quotes what the reader takes as an escape only, or what some tools fold."""
        style = '"' if is_ambiguous(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_MOST_ON_A_LINE = 8

_Dumper.add_representer(list, _Dumper.represent_plain_list)
_Dumper.add_representer(str, _Dumper.represent_text)
