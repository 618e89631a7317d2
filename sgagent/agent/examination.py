"""An examination of the host by the doctor: gather facts at the rim, and have the checks look at them.

What can't be looked at is named, and stops nothing else.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from sgagent.analysis.doctor.facts import (
    EarlyProgram,
    ForeignLink,
    HostEvidence,
    KernelFact,
    NftProgram,
    PortHolder,
    Routing,
)
from sgagent.analysis.doctor.findings import Blindness, Diagnosis, NotSeen
from sgagent.analysis.doctor.policy_fact import PolicyFact
from sgagent.analysis.doctor.registry import diagnose
from sgagent.core.binding import HostFacts
from sgagent.core.errors import SgagentError
from sgagent.core.link_topology import lower_devices
from sgagent.dataplane.live_sessions import users_listening
from sgagent.host import installed_programs, kernel_settings, link_programs
from sgagent.host.foreign_namespaces import read_foreign_links
from sgagent.host.transform_policies import read_transform_policies
from sgagent.nft.kernel_table import FAULTS, KernelTable, read_tables
from sgagent.settings import Settings
from sgagent.settings.listen_address import ListenAddress

_T = TypeVar("_T")
_AGENT_USER = "sgagent"


@dataclass(slots=True, kw_only=True)
class Examination:
    """One look at the host, in the network namespace of the calling thread."""

    settings: Settings
    read_rules: Callable[[], bytes]
    """Returns the kernel's messages about tables, or raises OSError or SgagentError."""

    own_sockets: Callable[[], Collection[int]]
    """Inodes of sockets of agents."""

    owns_tables: Callable[[], bool | None]
    """Whether the kernel takes tables with an owner that outlive it; asked where no table of ours stands."""

    _not_seen: dict[Blindness, NotSeen] = field(default_factory=dict)

    def diagnose(self, policy: PolicyFact, facts: HostFacts) -> Diagnosis:
        """Examine everything, and return the findings."""
        self._not_seen = {}
        tables = self._seen(Blindness.RULESET, _RULESET, self._tables) or ()
        self._note_legacy_tables()
        evidence = HostEvidence(
            policy=policy,
            host=facts,
            tables=tables,
            programs=(
                *(self._seen(Blindness.LINKS, _PROGRAMS, link_programs.read_programs) or ()),
                *(self._seen(Blindness.TCX, _TCX, lambda: _tcx(policy, facts)) or ()),
            ),
            foreign_links=tuple(self._foreign_links(policy, facts)),
            routing=self._seen(Blindness.LINKS, _ROUTES, link_programs.read_routing) or Routing(),
            settings=kernel_settings.read_settings(),
            transforms=self._seen(Blindness.TRANSFORMS, _TRANSFORMS, read_transform_policies) or (),
            virtual_servers=kernel_settings.read_virtual_servers(),
            units=installed_programs.read_units(),
            nft_programs=tuple(self._nft_programs()),
            library=installed_programs.read_library_version(),
            clock=kernel_settings.read_clock(Path(__file__)),
            kernel=self._kernel(tables),
            port_holder=self._seen(Blindness.PORTS, _PORTS, self._port_holder),
        )
        if policy.depends_on_time and evidence.clock and evidence.clock.is_synchronised is None:
            self._miss(
                Blindness.CLOCK, "whether the clock is synchronised: this process may not ask the kernel"
            )
        return Diagnosis(findings=diagnose(evidence), not_seen=tuple(self._not_seen.values()))

    def _seen(self, what: Blindness, words: str, look: Callable[[], _T]) -> _T | None:
        """Return a look's result; None, and the reason kept, where the look fails."""
        try:
            return look()
        except PermissionError as error:
            self._miss(what, f"{words}: {error.strerror or error}")
        except OSError as error:
            self._miss(what, f"{words.partition(':')[0]}: {error.strerror or error}")
        except SgagentError as error:
            self._miss(what, f"{words}: {error}")
        return None

    def _miss(self, what: Blindness, reason: str) -> None:
        self._not_seen.setdefault(what, NotSeen(what=what, reason=reason))

    def _tables(self) -> tuple[KernelTable, ...]:
        dump = self.read_rules()
        try:
            return tuple(read_tables(dump))
        except FAULTS as fault:
            raise SgagentError(f"they can't be read: {fault}") from fault

    def _note_legacy_tables(self) -> None:
        tables = self._seen(Blindness.LEGACY_TABLES, _LEGACY, kernel_settings.read_legacy_tables)
        if tables:
            names = ", ".join(tables)
            self._miss(
                Blindness.LEGACY_TABLES,
                f"{_LEGACY}: {names} are loaded, which nftables does not show; look at them by"
                " 'iptables-legacy-save' and 'ip6tables-legacy-save', or move them by 'iptables-nft-restore'",
            )

    def _nft_programs(self) -> Iterator[NftProgram]:
        yield from installed_programs.read_own_programs(os.environ.get("PATH", ""))
        look = partial(_within, _CONTAINER_SECONDS, installed_programs.read_container_programs)
        found = self._seen(Blindness.CONTAINERS, _CONTAINERS, look)
        if found is not None:
            yield from found.programs
            if not found.is_whole:
                self._miss(Blindness.CONTAINERS, f"{_CONTAINERS}: only root may look into their file systems")

    def _foreign_links(self, policy: PolicyFact, facts: HostFacts) -> tuple[ForeignLink, ...]:
        names = {link.name for link in policy.bound}
        links = {link.name: link for link in facts.links}
        wanted = names | lower_devices(links, names.__contains__).keys()
        found, unseen = read_foreign_links({links[name].index: name for name in wanted & links.keys()})
        if unseen is not None:
            self._miss(Blindness.NAMESPACES, f"links of containers: {unseen}")
        return found

    def _kernel(self, tables: Iterable[KernelTable]) -> KernelFact:
        asked = not any(one.is_ours and (one.is_owned or one.is_persistent) for one in tables)
        return KernelFact(
            release=kernel_settings.kernel_release(), owns_tables=self.owns_tables() if asked else True
        )

    def _port_holder(self) -> PortHolder | None:
        listen = self.settings.metrics.listen
        own = None
        for address, user, inode in users_listening(listen.port):
            if user in _trusted_users() or not _overlaps(listen, address):
                continue
            own = self.own_sockets() if own is None else own
            if inode not in own:
                return PortHolder(address=f"{address}:{listen.port}", user=user)
        return None


_RULESET = "tables of others: only CAP_NET_ADMIN may list them"
_PROGRAMS = "programs of XDP and tc at links"
_ROUTES = "routes"
_TCX = "programs of tcx at links: only root may ask"
_TRANSFORMS = "policies of IPsec: only CAP_NET_ADMIN may list them"
_LEGACY = "tables of iptables-legacy"
_PORTS = "who listens at metrics.listen"


def _tcx(policy: PolicyFact, facts: HostFacts) -> tuple[EarlyProgram, ...]:
    bound = {link.name for link in policy.bound}
    return link_programs.read_tcx({link.name: link.index for link in facts.links if link.name in bound})


_CONTAINERS = "nft in containers"
_CONTAINER_SECONDS = 10.0
"""A container may have a file system that never answers."""


def _within(seconds: float, look: Callable[[], _T]) -> _T:
    """Return the result of a look in another thread.

    Raises:
        TimeoutError: it takes longer; it goes on, and nobody waits for it.
    """
    found = list[_T]()
    thread = threading.Thread(target=lambda: found.append(look()), name="containers", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    return found[0]


def _trusted_users() -> frozenset[int]:
    """Return root and the user of the agent's unit."""
    found = {0}
    with suppress(KeyError):
        found.add(pwd.getpwnam(_AGENT_USER).pw_uid)
    return frozenset(found)


def _overlaps(listen: ListenAddress, address: str) -> bool:
    """Return whether a listener at an address keeps another from listening."""
    found = ipaddress.ip_address(address)
    is_same = address == listen.host or (found.is_loopback and listen.host == "localhost")
    return is_same or found.is_unspecified or listen.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
