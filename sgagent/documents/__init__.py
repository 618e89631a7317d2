"""Read definitions: the native format and the answers of the ECS API, as bytes, into a snapshot."""

from __future__ import annotations

from sgagent.documents.limits import Limits
from sgagent.documents.parsing import parse_documents
from sgagent.documents.reading import DocumentFile
from sgagent.documents.refused import RefusedDocumentsError
from sgagent.documents.schema import json_schema

__all__ = ["DocumentFile", "Limits", "RefusedDocumentsError", "json_schema", "parse_documents"]
