"""Read what other tools say of security groups into our own words, and tell what has no equal in them."""

from __future__ import annotations

from sgagent.importers.aws import import_aws
from sgagent.importers.imported import Imported
from sgagent.importers.notes import ImportEffect, Note
from sgagent.importers.terraform import import_terraform

__all__ = ["ImportEffect", "Imported", "Note", "import_aws", "import_terraform"]
