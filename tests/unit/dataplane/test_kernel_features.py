"""What a kernel lacks is told from what its nft lacks, and from what could not be tried."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from sgagent.core.errors import KernelRefusedError
from sgagent.dataplane.kernel_features import FEATURES, Lack, library_fault, owns_by_number, probed
from sgagent.dataplane.libnftables import Accepted, Context, NotPossible, Refused
from sgagent.dataplane.table import list_anew

DESTROY = next(one for one in FEATURES if one.name == "destroy")


def test_what_is_accepted_is_there() -> None:
    """Nothing more is said of it."""
    found = probed(DESTROY, Accepted())
    assert (found.is_there, found.lack, found.reason) == (True, None, "")


@pytest.mark.parametrize(
    ("said", "lack"),
    (
        ("/dev/stdin:1:1-7: Error: syntax error, unexpected string\ndestroy table inet x", Lack.NFT),
        ("/dev/stdin:3:3-5: Error: Could not process rule: Operation not supported", Lack.KERNEL),
        ("", Lack.KERNEL),
    ),
)
def test_a_refusal_names_who_does_not_know_it(said: str, lack: Lack) -> None:
    """Of what nft writes, the first line is kept."""
    found = probed(DESTROY, Refused(said))
    assert (found.is_there, found.lack) == (False, lack)
    assert found.reason == said.partition("\n")[0]


def test_what_could_not_be_tried_is_not_known() -> None:
    """As where an ordinary user can't make namespaces."""
    found = probed(DESTROY, NotPossible("user namespaces are not allowed"))
    assert (found.is_there, found.lack, found.reason) == (None, None, "user namespaces are not allowed")


@pytest.mark.parametrize(
    ("release", "owns"),
    (
        ("5.10.0-38-amd64", False),
        ("6.8.0-31-generic", False),
        ("6.9", None),
        ("7.2.1", None),
        ("weird", None),
    ),
)
def test_numbers_say_only_what_is_missing(release: str, *, owns: bool | None) -> None:
    """A later kernel may have been built without; what it does then shows on its table."""
    assert owns_by_number(release) is owns


@pytest.fixture
def kernel_without_netfilter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every socket, as a kernel without nfnetlink refuses those for netfilter."""

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.usefixtures("kernel_without_netfilter")
def test_a_kernel_without_netfilter_is_an_error_with_its_modules() -> None:
    """Libnftables would end the process with a line of its own source."""
    for use in (Context, list_anew):
        with pytest.raises(KernelRefusedError, match=r"netfilter: Protocol not supported .*nf_tables"):
            use()
    assert "load the modules" in (library_fault() or "")
