"""The agent's own configuration: ``/etc/sgagent/sgagent.toml``."""

from __future__ import annotations

from sgagent.core.model import Sessions
from sgagent.settings.sources import (
    AliyunSourceSettings,
    ApiEndpoint,
    EtcdEndpoint,
    EtcdSourceSettings,
    FileSourceSettings,
    HttpsSourceSettings,
    HttpsUrl,
    SourceSettings,
    SourceType,
)
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
    "AliyunSourceSettings",
    "ApiEndpoint",
    "EnforcementSettings",
    "EtcdEndpoint",
    "EtcdSourceSettings",
    "FileSourceSettings",
    "FlowLogSettings",
    "FlowOutput",
    "HttpsSourceSettings",
    "HttpsUrl",
    "LintSettings",
    "ListenAddress",
    "MetricsSettings",
    "PageServing",
    "RefusedSettingsError",
    "Sessions",
    "Settings",
    "SignatureSettings",
    "SourceSettings",
    "SourceType",
    "StateSettings",
    "UnboundInterfaces",
    "parse_interface_name",
    "parse_settings",
    "parse_span",
]
