"""Parsers of definitions: the native format and ECS API answers, from bytes to a snapshot."""

from __future__ import annotations

from sgagent.documents.parse import DocumentFile, RefusedDocumentsError, parse_documents
from sgagent.documents.problems import Limits

__all__ = ["DocumentFile", "Limits", "RefusedDocumentsError", "parse_documents"]
