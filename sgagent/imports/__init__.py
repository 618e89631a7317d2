"""Read what other tools say of security groups into our own words, and tell what has no equal in them."""

from __future__ import annotations

from sgagent.imports.aws import import_aws
from sgagent.imports.imported import Imported
from sgagent.imports.notes import Effect, Note
from sgagent.imports.terraform import import_terraform

__all__ = ["Effect", "Imported", "Note", "import_aws", "import_terraform"]
