"""The agent's own configuration: ``/etc/sgagent/sgagent.toml``."""

from __future__ import annotations

from sgagent.settings.tables import Settings, SignatureSettings, StateSettings
from sgagent.settings.toml_reader import RefusedSettingsError, parse_interface_name, parse_settings

__all__ = [
    "RefusedSettingsError",
    "Settings",
    "SignatureSettings",
    "StateSettings",
    "parse_interface_name",
    "parse_settings",
]
