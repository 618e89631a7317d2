"""Importers of AWS answers and Terraform states into native definitions, with notes on their losses."""

from __future__ import annotations

from sgagent.importers.aws import import_aws
from sgagent.importers.aws_rules import ImportEffect, Note
from sgagent.importers.context import Imported
from sgagent.importers.terraform import import_terraform

__all__ = ["ImportEffect", "Imported", "Note", "import_aws", "import_terraform"]
