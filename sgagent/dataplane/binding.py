"""Open libnftables through the binding that this Python has: Debian's, or the older copy that PyPI has."""

from __future__ import annotations

import ctypes
from typing import Any

from sgagent.core.errors import UsageError

_LIBRARY = "libnftables.so.1"
_NO_DNS = 1
"""NFT_CTX_INPUT_NO_DNS of libnftables(3)."""


def open_binding() -> Any:  # noqa: ANN401 - the binding has no types
    """Return a context of libnftables that looks no name up, and that can be told to try only.

    Raises:
        UsageError: binding or library are not installed, or are too old.
    """
    try:
        import nftables  # noqa: PLC0415 - all but the data plane works without

        binding = nftables.Nftables()
        if not hasattr(binding, "set_input_flags"):
            binding = _Completed(binding)
    except (ImportError, OSError, AttributeError) as error:
        raise UsageError(f"libnftables can't be used: {error} (install python3-nftables)") from error
    binding.set_input_flags("no-dns")
    return binding


class _Completed:
    """Give a binding that is older than the library what it lacks of it."""

    def __init__(self, binding: Any) -> None:  # noqa: ANN401 - the binding has no types
        """Take a binding, with its context.

        Raises:
            AttributeError: the library is too old as well.
            OSError: the library can't be loaded.
        """
        self._binding = binding
        self._context = ctypes.c_void_p(binding._Nftables__ctx)  # noqa: SLF001 - there is no other way to it
        library = ctypes.CDLL(_LIBRARY)
        self._set_input_flags = library.nft_ctx_input_set_flags
        self._set_dry_run = library.nft_ctx_set_dry_run
        self._get_dry_run = library.nft_ctx_get_dry_run
        self._get_dry_run.restype = ctypes.c_bool

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the binding has no types
        """Return what the binding has itself."""
        return getattr(self._binding, name)

    def set_input_flags(self, flag: str) -> None:
        """Have the library look no name up; it knows no other flag here."""
        if flag != "no-dns":
            raise ValueError(f"no such input flag: {flag!r}")
        self._set_input_flags(self._context, ctypes.c_uint(_NO_DNS))

    def set_dry_run(self, is_wanted: bool) -> bool:  # noqa: FBT001 - as the newer binding has it
        """Have commands only tried, or carried out, and return what it was before."""
        before = bool(self._get_dry_run(self._context))
        self._set_dry_run(self._context, ctypes.c_bool(is_wanted))
        return before
