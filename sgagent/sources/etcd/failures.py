"""Say why etcd gave no answer, or one that helps nobody.

The exceptions::

EtcdError
├── ConnectionLostError    the end point can't be reached, is silent, or speaks something else
│   └── TooSlowError       it takes too long to answer
├── TooLargeError          it holds more than anybody takes in; the connection goes on
│   └── AnswerTooLargeError  it has more to say at once
├── CallRefusedError       it answered with an error; carries the code of gRPC
└── CompactedError         what was asked for is gone from the store's history
"""

from __future__ import annotations

import enum

LESS = "publish fewer or smaller objects, or raise limits.document_bytes"
"""What helps where something is too large."""


class Status(enum.IntEnum):
    """Codes of gRPC that something depends on here."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    OUT_OF_RANGE = 11
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class EtcdError(Exception):
    """Be the root of what the client raises."""


class ConnectionLostError(EtcdError):
    """Say that an end point can't be reached, or no longer; another one may be."""


class TooSlowError(ConnectionLostError):
    """Say that an end point takes too long to answer."""


class TooLargeError(EtcdError):
    """Say that a store holds more than anybody takes in."""


class AnswerTooLargeError(TooLargeError):
    """Say that an end point has more to say at once than anybody takes in; it can be asked for less."""


class CallRefusedError(EtcdError):
    """Say that an end point answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the code of gRPC and the words of the server."""
        self.code = code
        super().__init__(message or f"gRPC status {code}")

    @property
    def is_passing(self) -> bool:
        """Tell whether another end point, or the same a little later, may well give an answer."""
        return self.code in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED)


class CompactedError(EtcdError):
    """Say that the revision that was asked for is gone from the history."""


def as_compacted(error: CallRefusedError) -> EtcdError:
    """Return a refusal as what it means: that the store has forgotten a revision, or itself."""
    return CompactedError(str(error)) if error.code == Status.OUT_OF_RANGE else error
