"""Other tables in ``explain``: which base chains see a packet too, and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.binding import HostFacts
from sgagent.core.errors import NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import Explanation
from sgagent.core.model import Direction, Mode, Policy
from sgagent.dataplane.table_dump import read_others
from sgagent.host.links import NetlinkHost, read_forwarding
from sgagent.nft.kernel_table import FAULTS
from sgagent.verify.other_tables import ChainVerdict, Way, final_verdict, verdicts_of_others
from sgagent.verify.programs import read_filters


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTables:
    """The result of a look at the tables of others."""

    not_looked_because: str | None = None
    chains: tuple[ChainVerdict, ...] = ()
    not_read: tuple[str, ...] = ()
    """Chains and tables of other kinds, such as those that translate addresses."""

    @property
    def as_json(self) -> dict[str, object]:
        """Return it for scripts."""
        verdict = None if self.not_looked_because else final_verdict(self.chains)
        return {
            "looked_at": self.not_looked_because is None,
            "reason": self.not_looked_because,
            "verdict": verdict.value if verdict else None,
            "chains": [
                {
                    "chain": one.chain,
                    "hook": one.hook,
                    "priority": one.priority,
                    "verdict": one.verdict.value if one.verdict else None,
                    "decided_in": one.decided_in,
                    "unread": one.unread,
                }
                for one in self.chains
            ],
            "not_read": list(self.not_read),
        }

    def lines(self) -> Iterator[str]:
        """Yield lines for people; none where no other table sees the packet."""
        if self.not_looked_because is not None:
            yield f"  other tables were not looked at: {self.not_looked_because}"
            return
        for one in self.chains:
            yield f"  {_words(one)}"
        if self.not_read:
            yield f"  not read: {', '.join(self.not_read)}"


def _words(one: ChainVerdict) -> str:
    place = f"{one.chain} (hook {one.hook}, priority {one.priority})"
    if one.verdict is None:
        return f"{place} sees it too: its verdict is not known ({one.unread})"
    inside = "" if one.decided_in == one.chain else f", in {one.decided_in}"
    if one.decided_in is None:
        inside = ", by its policy"
    does = "drops" if one.verdict is Policy.DROP else "accepts"
    when = "then" if one.is_behind_ours else "before that,"
    return f"{when} {place} {does} it{inside}"


def look_at_other_tables(explanation: Explanation, packet: Packet, interface: str) -> OtherTables:
    """Return other tables' verdicts on a packet at one of this host's links.

    Args:
        explanation: what sgagent does with it.
        packet: as it is on the wire.
        interface: the link.
    """
    facts = NetlinkHost().facts()
    if all(link.name != interface for link in facts.links):
        return OtherTables(not_looked_because=f"this host has no link {interface}")
    try:
        table = read_filters(read_others())
    except NotPermittedError as error:
        return OtherTables(not_looked_because=str(error))
    except (OSError, *FAULTS) as error:
        return OtherTables(not_looked_because=f"they can't be read: {error}")
    is_local = _is_local(packet, facts)
    if not is_local and packet.family not in read_forwarding():
        return OtherTables(not_read=("the packet is neither this host's nor forwarded by it",))
    way = Way(
        packet=packet,
        decided_by=explanation.decided_by,
        is_dropped=explanation.verdict is Policy.DROP and explanation.mode is not Mode.OBSERVE,
        is_local=is_local,
    )
    return OtherTables(
        chains=verdicts_of_others(table, way),
        not_read=table.unread,
    )


def _is_local(packet: Packet, facts: HostFacts) -> bool:
    """Return whether this host is the near end: by an address of a link, or by one that is nobody's."""
    near = packet.destination if packet.direction is Direction.INGRESS else packet.source
    own = {one.first for link in facts.links for one in link.addresses if one.family is packet.family}
    first, last = _MULTICAST[packet.family.bits]
    return near in own or first <= near <= last


_MULTICAST = {32: (0xE0000000, 0xFFFFFFFF), 128: (0xFF << 120, (1 << 128) - 1)}
"""With IPv4's broadcast address."""
