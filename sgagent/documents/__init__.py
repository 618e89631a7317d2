"""Parsers of definitions: the native format and ECS API answers, from bytes to a snapshot."""

from __future__ import annotations

import os

from sgagent.documents.parse import DocumentFile, RefusedDocumentsError, parse_documents
from sgagent.documents.problems import Limits

__all__ = ["DocumentFile", "Limits", "RefusedDocumentsError", "parse_documents"]

# Of pydantic, which the first module that needs a model imports: no plugin of another package runs here, and
# no time goes into checks of the schemas that pydantic itself makes of the models.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
os.environ.setdefault("PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS", "true")
