"""The agent's own configuration: ``/etc/sgagent/sgagent.toml``."""

from __future__ import annotations

from sgagent.core.model import Sessions
from sgagent.settings.aliyun import AliyunSourceSettings, ApiEndpoint
from sgagent.settings.etcd import EtcdEndpoint, EtcdSourceSettings
from sgagent.settings.flowlog import FlowLogSettings, FlowOutput
from sgagent.settings.lint import LintSettings
from sgagent.settings.parsing import parse_interface_name, parse_settings
from sgagent.settings.refused import RefusedSettingsError
from sgagent.settings.signature import SignatureSettings
from sgagent.settings.sources import (
    FileSourceSettings,
    HttpsSourceSettings,
    HttpsUrl,
    SourceSettings,
    SourceType,
)
from sgagent.settings.values import (
    METADATA_SERVICE,
    EnforcementSettings,
    ListenAddress,
    MetricsSettings,
    PageServing,
    Settings,
    StateSettings,
    UnboundInterfaces,
)

__all__ = [
    "METADATA_SERVICE",
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
]
