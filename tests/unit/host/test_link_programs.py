"""Reading routes on kernels that lack something."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from sgagent.core.model import Family
from sgagent.host.link_programs import dump_family
from sgagent.netlink import Message, NetlinkSocket

GET_RULE = 34


class Refusing(NetlinkSocket):
    """A kernel that refuses to list a family."""

    def __init__(self, number: int) -> None:
        """Keep the error."""
        super().__init__(socket.NETLINK_ROUTE)
        self.number = number

    def dump(self, kind: int, payload: bytes) -> Iterator[Message]:
        """Refuse."""
        raise OSError(self.number, f"request {kind} with {payload!r}")


def test_a_family_that_the_kernel_does_without_has_no_rules() -> None:
    """With ``ipv6.disable=1`` IPv4's are looked at all the same; other refusals are told."""
    with Refusing(errno.EAFNOSUPPORT) as without:
        assert list(dump_family(without, GET_RULE, Family.IPV6)) == []
    with Refusing(errno.EPERM) as refusing, pytest.raises(PermissionError):
        list(dump_family(refusing, GET_RULE, Family.IPV6))
