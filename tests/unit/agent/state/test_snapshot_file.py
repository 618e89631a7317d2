"""Files of kept documents: what was written is read, and what is not whole is never believed."""

from __future__ import annotations

import pytest

from sgagent.agent.state.directory import (
    DamagedStateError,
    Extent,
    KeptDocuments,
    Record,
    SnapshotHead,
    Terms,
    Trigger,
    decode_head,
    decode_kept,
    encode_kept,
)
from sgagent.core.expected_links import ExpectedLink
from sgagent.documents import DocumentFile
from sgagent.json_model import from_json

RECORD = Record(
    origin=Trigger.APPLY,
    enforced_at=12.5,
    held_back="sha256:b",
    extent=Extent(interfaces=1, rules=2, chains=30, elements=4),
    terms=Terms(boot_id="this boot", began=1.0, deadline=61.0),
)
KEPT = KeptDocuments(
    version="sha256:a",
    documents=(DocumentFile("a\udcff.yaml", "version: 1 # ü\n".encode()), DocumentFile("b.json", b"{}")),
    links=(ExpectedLink(interface="eth0", network_interface_id="eni-1", is_plain=True),),
    record=RECORD,
)


@pytest.mark.parametrize("record", (RECORD, Record()))
def test_what_is_written_is_read(record: Record) -> None:
    """Documents, links and all that is known of how they came to be enforced."""
    kept = KeptDocuments(version=KEPT.version, documents=KEPT.documents, links=KEPT.links, record=record)
    assert decode_kept(encode_kept(kept), "x") == kept


def test_what_an_earlier_version_wrote_is_read() -> None:
    """It kept nothing of what the links are."""
    kept = from_json(ExpectedLink, {"interface": "eth0", "network_interface_id": "eni-1"})
    assert not kept.is_plain


def test_the_head_tells_without_the_documents() -> None:
    """It is read for lists, of files whose content is whole."""
    sizes = sum(len(file.content) for file in KEPT.documents)
    assert decode_head(encode_kept(KEPT), "x") == SnapshotHead(
        version="sha256:a", record=RECORD, documents=2, bytes=sizes
    )


def test_a_file_that_is_not_whole_is_not_believed() -> None:
    """However much of it is missing, and whichever byte is another; the file is named."""
    content = encode_kept(KEPT)
    broken = [content[:length] for length in range(len(content) - 1)]
    broken += [
        content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in range(len(content))
    ]
    for damaged in broken:
        for decode in (decode_kept, decode_head):
            with pytest.raises(DamagedStateError, match=r"^history/7"):
                decode(damaged, "history/7")


@pytest.mark.parametrize(
    "content",
    (b"", b"\x00" * 4096, b"[]", b"7", b'{"format": 3}', b'{"format": 4, "sha256": ""}\n', b"[" * 9999),
)
def test_a_file_of_something_else_is_damaged(content: bytes) -> None:
    """Among others one of zeros, as a power cut may leave."""
    with pytest.raises(DamagedStateError):
        decode_kept(content, "x")


def test_a_file_of_a_newer_version_is_not_called_damaged() -> None:
    """Whoever went back to an older version has to know that nothing is broken."""
    newer = encode_kept(KEPT).replace(b'"format": 3', b'"format": 4', 1)
    with pytest.raises(DamagedStateError, match=r"^history/7: of format 4, which this version does not"):
        decode_kept(newer, "history/7")
