"""Signing options of the commands that publish to etcd."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sgagent.cli.sign import load_key, parse_lifetime
from sgagent.core.errors import NotPermittedError, SourceUnavailableError, UsageError
from sgagent.settings import Settings
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.signatures import Manifest, SignatureFile
from sgagent.signatures.keys import PrivateKey
from sgagent.signatures.manifest import MalformedSignatureError, time_in_words
from sgagent.sources.etcd.grpc import LESS, CallRefusedError, EtcdError, GrpcStatus, StoreTooLargeError
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.publication import Published, signature_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who vouches."""
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="sign with a private key that 'sgagent keygen' made; given twice, both sign",
    )
    parser.add_argument(
        "--expires", metavar="TIME", help="hosts refuse the signature after this time, like 90m, 12h or 30d"
    )
    parser.add_argument(
        "--unsigned", action="store_true", help="publish without a signature where there was one"
    )


@dataclass(frozen=True, slots=True)
class Voucher:
    """Sign publications."""

    keys: tuple[PrivateKey, ...]
    signed_at: int
    expires_at: int | None
    standing: SignatureFile | None
    """What stands in the store; None for nothing that can be read."""

    @property
    def key_ids(self) -> list[str]:
        """Return what the keys are known by."""
        return [key.public.key_id for key in self.keys]

    @property
    def summary(self) -> str:
        """Return in words who vouches, and until when."""
        until = "" if self.expires_at is None else f", good until {time_in_words(self.expires_at)}"
        return f"signed by {', '.join(self.key_ids)}{until}"

    def sign(self, contents: Mapping[str, bytes], serial: int) -> SignatureFile:
        """Vouch for contents; what stands in the store already does if nothing would be new in it.

        Raises:
            UsageError: there is nothing to sign.
        """
        if not contents:
            raise UsageError("--key: documents that hold nothing can't be signed")
        manifest = Manifest.of(contents, serial=serial, signed_at=self.signed_at, expires_at=self.expires_at)
        if self.standing is not None and self._is_vouched_for(manifest, self.standing):
            return self.standing
        return SignatureFile(manifest, tuple(key.sign(manifest) for key in self.keys))

    def _is_vouched_for(self, manifest: Manifest, standing: SignatureFile) -> bool:
        """Return whether a signature says the same by the same keys, for ever."""
        is_for_ever = manifest.expires_at is None and standing.manifest.expires_at is None
        signers = {signature.key_id for signature in standing.signatures}
        return is_for_ever and standing.manifest.files == manifest.files and signers == set(self.key_ids)


@dataclass(frozen=True, slots=True)
class Wish:
    """How to sign a publication, as the command line says."""

    keys: tuple[PrivateKey, ...]
    lifetime: int | None
    """Seconds; None never expires."""

    is_unsigned: bool
    """Whether to publish without a signature even if the previous publication had one."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Wish:
        """Return what the options say, and read the keys; the store is not asked yet.

        Raises:
            UsageError: the options do not fit together, or a key or a time is none.
        """
        if options.unsigned and options.key:
            raise UsageError("--unsigned: does not go with --key")
        if options.expires is not None and not options.key:
            raise UsageError("--expires: is part of a signature, and needs --key")
        return cls(
            keys=tuple(load_key(path) for path in options.key),
            lifetime=None if options.expires is None else parse_lifetime(options.expires),
            is_unsigned=options.unsigned,
        )

    def voucher(self, published: Published, layout: KeyLayout) -> Voucher | None:
        """Return the signer of the next publication; None publishes without a signature.

        Raises:
            UsageError: the current publication is signed, and the options name neither a key nor --unsigned.
        """
        standing = signature_in(published.items, layout)
        if standing is not None and not self.keys and not self.is_unsigned:
            raise UsageError(
                "what is published is signed"
                " (--key FILE signs this, too; --unsigned if no host asks for signatures any more)"
            )
        if not self.keys:
            return None
        now = int(time.time())
        return Voucher(
            keys=self.keys,
            signed_at=now,
            expires_at=None if self.lifetime is None else now + self.lifetime,
            standing=None if standing is None else _parsed(standing),
        )


def _parsed(content: bytes) -> SignatureFile | None:
    try:
        return SignatureFile.parse(content)
    except MalformedSignatureError:
        return None


PATIENCE_SECONDS = 6.0
"""Seconds of retries while the cluster has no leader or can't be reached."""


def etcd_settings(settings: Settings) -> EtcdSourceSettings:
    """Return where the cluster is.

    Raises:
        UsageError: the configuration names another source.
    """
    if not isinstance(settings.source, EtcdSourceSettings):
        raise UsageError('the configured source is no etcd cluster (type = "etcd" in [source], or --config)')
    return settings.source


@contextmanager
def translated_etcd_errors() -> Iterator[None]:
    """Translate exceptions of the etcd client into those that set a command's exit code.

    Raises:
        NotPermittedError: the user lacks the permission, or authentication failed.
        SourceUnavailableError: there was no answer, or it is too large.
    """
    try:
        yield
    except CallRefusedError as error:
        if error.code in (GrpcStatus.PERMISSION_DENIED, GrpcStatus.UNAUTHENTICATED):
            raise NotPermittedError(f"etcd: {error}") from error
        raise SourceUnavailableError(f"etcd: {error}") from error
    except StoreTooLargeError as error:
        raise SourceUnavailableError(f"etcd: {error} ({LESS})") from error
    except EtcdError as error:
        raise SourceUnavailableError(f"etcd: {error}") from error
