"""Sessions that a policy cuts, with the rule or default that drops them, as text and as log keys."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass

from sgagent.core.lockout import CutSession, SessionKind
from sgagent.core.model import Direction, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCut:
    """A session that is cut, in words."""

    interface: str
    kind: SessionKind
    opened: Direction
    peer: str
    peer_port: int
    local: str
    local_port: int
    decided_by: str
    """The step of §3."""

    rule_id: str | None

    def __str__(self) -> str:
        """Return the session and what forbids it, for a person."""
        who = {SessionKind.MANAGEMENT: "the login", SessionKind.SOURCE: "the agent's own session"}
        what = who.get(self.kind, "the session")
        by = f"rule {self.rule_id}" if self.rule_id else f"the {self.decided_by}"
        if self.opened is Direction.EGRESS:
            return f"{what} to {self.peer} port {self.peer_port} on {self.interface}, by {by}"
        whence = f"from {self.peer} port {self.peer_port} to port {self.local_port}"
        return f"{what} {whence} on {self.interface}, by {by}"


def named(cut: CutSession) -> NamedCut:
    """Return a session that is cut, and why, in words."""
    session = cut.session
    kind = ipaddress.IPv4Address if session.family is Family.IPV4 else ipaddress.IPv6Address
    return NamedCut(
        interface=cut.interface,
        kind=session.kind,
        opened=session.opened,
        peer=str(kind(session.peer_address)),
        peer_port=session.peer_port,
        local=str(kind(session.local_address)),
        local_port=session.local_port,
        decided_by=cut.decision.decided_by.value,
        rule_id=cut.decision.rule.rule_id if cut.decision.rule else None,
    )


def as_keys(cut: NamedCut) -> dict[str, object]:
    """Return the fields as keys of a log line."""
    return {**asdict(cut), "kind": cut.kind.value, "opened": cut.opened.value}
