"""Reports to the store: the state of this host, and its addresses in groups."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from sgagent import __version__
from sgagent.agent.status import Status
from sgagent.core.binding import HandBinding, HostFacts, Link, binding_by_hand
from sgagent.ports import Source
from sgagent.settings import Settings
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.sources.etcd.host_reports import Report, keys_kept
from sgagent.sources.etcd.key_layout import FLEET, MEMBERS, MOST_ANNOUNCED, KeyLayout, write_member
from sgagent.sources.etcd.source import EtcdSource, FetchedPublication

_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9._:-]")


def presence_kept(
    settings: Settings,
    store: EtcdSourceSettings,
    source: Source,
    status: Callable[[], Status],
    facts: Callable[[], HostFacts],
) -> AbstractContextManager[None]:
    """Keep this host's keys in a store that definitions come from, until the context is left.

    Args:
        settings: the configuration.
        store: where the keys are kept.
        source: of all definitions. Where that is a union, the version in force is none of the store, and
            nothing is reported; the host is announced all the same.
        status: how the agent is doing; may be asked from any thread.
        facts: the links; likewise.
    """
    etcd = source if isinstance(source, EtcdSource) else None
    store = store if etcd else replace(store, report=False)
    if not (store.report or store.announce):
        return nullcontext()
    presence = Presence(store, status, lambda: etcd.publication if etcd else None, facts, settings.interfaces)
    return keys_kept(store, presence.keys, settings.state.directory)


@dataclass(eq=False)
class Presence:
    """Work out this host's keys."""

    settings: EtcdSourceSettings
    status: Callable[[], Status]
    publication: Callable[[], FetchedPublication | None]
    facts: Callable[[], HostFacts]
    by_hand: tuple[HandBinding, ...]

    def __post_init__(self) -> None:
        """Begin with a publication that nobody made."""
        self._layout = KeyLayout(self.settings.prefix)
        self._host = self.settings.host_name or socket.gethostname()
        self._reached = _NOTHING

    def keys(self) -> Mapping[str, bytes]:
        """Return the keys that should stand in the store now."""
        keys: dict[str, bytes] = {}
        if self.settings.report:
            keys[self._layout.key(FLEET, self._host)] = self._report().encoded()
        if self.settings.announce:
            for link in self.facts().links:
                binding = binding_by_hand(link, self.by_hand)
                if binding is not None and not binding.network_interface_id:
                    keys.update(self._announced(binding, link))
        return keys

    def _report(self) -> Report:
        """Return how this host is doing.

        A publication is reached when what it holds for this host is in force; one that changes nothing here
        is reached as soon as it is known. One that gave way to other documents by hand is not.
        """
        status, publication = self.status(), self.publication()
        is_refused = status.step.is_refused or status.step.kernel_error is not None
        if not is_refused and publication is not None and publication.version == status.snapshot_version:
            self._reached = publication
        elif not is_refused and self._reached.version != status.snapshot_version:
            self._reached = _NOTHING
        kernel_error = status.step.kernel_error
        errors = (*status.first_errors, *filter(None, (kernel_error,)))
        return Report(
            host=self._host,
            agent_version=__version__,
            posture=status.posture.value,
            version=status.snapshot_version,
            serial=self._reached.serial,
            revision=self._reached.revision,
            since=status.snapshot_since,
            errors=errors,
            kernel_refused=status.step.kernel_error is not None,
            drift_repaired=status.drift_repaired,
            drift_unhealed=status.is_drift_unhealed,
        )

    def _announced(self, binding: HandBinding, link: Link) -> Mapping[str, bytes]:
        """Return the keys by which a link is a member of the groups that it is bound to."""
        name = _NOT_OF_AN_ID.sub(_bytes_of, f"{self._host}.{link.name}")
        addresses = [
            str(block)
            for block in link.addresses
            if not (block.network.is_link_local or block.network.is_loopback)
        ]
        value = write_member(addresses[:MOST_ANNOUNCED])
        return {self._layout.key(MEMBERS, group, name): value for group in binding.security_group_ids}


def _bytes_of(match: re.Match[str]) -> str:
    """Return text as its bytes, ``:2b``; names of hosts and links have no colon, so none becomes another."""
    return "".join(f":{byte:02x}" for byte in match[0].encode(errors="surrogateescape"))


_NOTHING = FetchedPublication(serial=0, revision=0, version="")
