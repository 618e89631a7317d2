"""The agent's own configuration: ``/etc/sgagent/sgagent.toml``."""

from __future__ import annotations

from sgagent.nft.marks import Sessions
from sgagent.settings.tables import (
    METADATA_SERVICE,
    SPAN_FORM,
    EnforcementSettings,
    FlowLogSettings,
    FlowOutput,
    LintSettings,
    ListenAddress,
    MetricsSettings,
    PageServing,
    Settings,
    SignatureSettings,
    StateSettings,
    UnboundInterfaces,
    parse_span,
)
from sgagent.settings.toml_reader import RefusedSettingsError, parse_interface_name, parse_settings

__all__ = [
    "METADATA_SERVICE",
    "SPAN_FORM",
    "EnforcementSettings",
    "FlowLogSettings",
    "FlowOutput",
    "LintSettings",
    "ListenAddress",
    "MetricsSettings",
    "PageServing",
    "RefusedSettingsError",
    "Sessions",
    "Settings",
    "SignatureSettings",
    "StateSettings",
    "UnboundInterfaces",
    "parse_interface_name",
    "parse_settings",
    "parse_span",
]
