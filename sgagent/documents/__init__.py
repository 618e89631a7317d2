"""Read definitions: the native format and the answers of the ECS API, as bytes, into a snapshot."""

from __future__ import annotations

from sgagent.documents.limits import Limits
from sgagent.documents.parsing import parse_documents
from sgagent.documents.reading import DocumentFile

__all__ = ["DocumentFile", "Limits", "parse_documents"]
