"""Load the smallest programs of BPF and attach them to links."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct

from integration.namespaces import Namespace
from sgagent.netlink import NESTED, NETLINK_ROUTE, NetlinkSocket, attribute

_CALLS = {"x86_64": 321, "aarch64": 280}
_LOAD, _ATTACH = 5, 8
CLASSIFIER, XDP = 3, 6
"""Types of programs."""

TCX_INGRESS = 46
_PASS = {XDP: 2, CLASSIFIER: -1}
_LIBC = ctypes.CDLL(None, use_errno=True)


def load(kind: int) -> int:
    """Load a program that passes every packet on, and return its descriptor.

    Raises:
        OSError: the kernel refused.
    """
    code = struct.pack("=BBhi", 0xB7, 0, 0, _PASS[kind]) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    about = struct.pack(
        "=IIQQIIQII16sII",
        *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, b"", 0, 0),
    )
    return _call(_LOAD, about)


def attach_tcx(host: Namespace, link: str, program: int) -> None:
    """Attach a classifier to tc's ingress hook without a filter.

    Raises:
        OSError: the kernel refused, as before 6.6.
    """
    with host.entered():
        index = socket.if_nametoindex(link)
        _call(_ATTACH, struct.pack("=IIIIIIQ", index, program, TCX_INGRESS, 0, 0, 0, 0))


def attach_xdp(host: Namespace, link: str, program: int) -> None:
    """Attach a program of XDP.

    Raises:
        OSError: the kernel refused.
    """
    xdp = attribute(1, struct.pack("=i", program)) + attribute(3, struct.pack("=I", 1 << 1))
    with host.entered(), NetlinkSocket(NETLINK_ROUTE) as netlink:
        header = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(link), 0, 0)
        errors = netlink.order([(19, header + attribute(43 | NESTED, xdp))])
    if errors:
        raise OSError(errors[0], os.strerror(errors[0]), link)


def _call(command: int, about: bytes) -> int:
    buffer = ctypes.create_string_buffer(about, len(about))
    number = _CALLS[platform.machine()]
    found = _LIBC.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(len(about)))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)
