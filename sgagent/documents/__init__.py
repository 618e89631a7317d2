"""Parsers of definitions: the native format and ECS API answers, from bytes to a snapshot."""

from __future__ import annotations

from sgagent.documents.field import RefusedDocumentsError
from sgagent.documents.findings import Limits
from sgagent.documents.parse import parse_documents, parse_other_version
from sgagent.documents.schema import json_schema
from sgagent.documents.text import DocumentFile

__all__ = [
    "DocumentFile",
    "Limits",
    "RefusedDocumentsError",
    "json_schema",
    "parse_documents",
    "parse_other_version",
]
