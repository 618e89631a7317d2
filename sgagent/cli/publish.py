"""``sgagent publish``: write documents to the configured etcd cluster, and sign them on request.

``fleet`` takes the settings of the cluster from here.
"""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Self

from sgagent.analysis.definition_diff import Edit, Edited, edits
from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.keygen import load_keys
from sgagent.cli.main import option_adder
from sgagent.cli.output import format_json, warn
from sgagent.cli.sign import parse_lifetime
from sgagent.core.binding import Bindings
from sgagent.core.errors import (
    DocumentError,
    NotPermittedError,
    SourceUnavailableError,
    UsageError,
    count,
    printable,
)
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions, Scope, resolve
from sgagent.documents import Limits, parse_documents
from sgagent.settings import Settings
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.signatures import MalformedSignatureError, Manifest, PrivateKey, SignatureFile, time_in_words
from sgagent.sources.etcd import publication
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.documents import Everything
from sgagent.sources.etcd.grpc import LESS, CallRefusedError, EtcdError, GrpcStatus, StoreTooLargeError
from sgagent.sources.etcd.key_layout import KeyLayout

_SIGNS = {Edit.ADDED: "+", Edit.REMOVED: "-", Edit.CHANGED: "~"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser, instead="")
    add("--dry-run", "print what would be written, write nothing")
    add("--strict", "treat warnings as errors")
    add("--allow-empty", "also publish documents that define nothing")
    add("--take-over", "end a publication that another client left unfinished")
    text = "sign with a private key that 'sgagent keygen' made; given twice, both sign"
    add("--key FILE", text, action="append", default=[])
    add("--expires TIME", "hosts refuse the signature after this time, like 90m, 12h or 30d")
    add("--unsigned", "publish without a signature where there was one")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Validate, print the plan, and publish; return 1 if another client published meanwhile."""
    signer = Signer.of(options)
    settings = load_settings(options)
    source = etcd_settings(settings)
    snapshot = _valid(settings, options)
    layout = KeyLayout(source.prefix)
    with translated_etcd_errors(), closing(Client(source, limits=settings.limits)) as client:
        published = client.persistently(lambda: publication.read_published(client, layout), PATIENCE_SECONDS)
        _refuse_mistakes(published, snapshot, options)
        found = tuple(edits(_snapshot_of(published, layout, settings.limits), snapshot))
        signer = beside_published(signer, published, layout, is_unsigned=options.unsigned)
        sign = None if signer is None else signer.sign
        plan = publication.plan_publication(published, snapshot, layout, by=_who(), at=time.time(), sign=sign)
        if not options.json:
            _print_plan(found, plan)
        marker, revision, is_written = published.marker, None, False
        is_complete = marker is not None and marker.state is publication.Completeness.COMPLETE
        if marker is not None and is_complete and marker.version == snapshot.version and not plan.writes:
            revision = published.marker_revision
        elif not options.dry_run:
            try:
                revision, is_written = publication.publish(client, plan, layout), True
            except publication.PublishedMeanwhileError as error:
                print(f"sgagent: {error}: nothing more was written (publish again)", file=sys.stderr)
                return 1
    if options.json:
        print(format_json(_report(found, plan, revision, signer, is_written=is_written), indent=2))
    elif is_written:
        signed = "" if signer is None else f", {signer.summary}"
        name = f"serial {plan.marker.serial}, version {plan.marker.version}"
        print(f"published: revision {revision}, {name}{signed}")
    elif revision is not None:
        print(f"nothing to publish: revision {revision} is the same")
    return 0


def _valid(settings: Settings, options: argparse.Namespace) -> Snapshot:
    """Return the documents' snapshot; the whole of it must make sense (§8.3).

    Raises:
        DocumentError: it does not.
        UsageError: there is no such path.
    """
    delivery = inputs.fetch(settings, inputs.required_definitions(options))
    at = inputs.latest_time(settings)
    resolution = resolve(delivery.snapshot, Bindings(), Exemptions(), scope=Scope.EVERYTHING, at=at)
    whole = inputs.with_all_problems(resolution, delivery, settings, Scope.EVERYTHING)
    inputs.accept_or_refuse(whole.problems, settings, options)
    return delivery.snapshot


def _refuse_mistakes(store: publication.Published, snapshot: Snapshot, options: argparse.Namespace) -> None:
    """Refuse a publication that the options do not allow.

    Raises:
        UsageError: another client publishes, or all would be deleted, as for an empty directory.
    """
    marker = store.marker
    if marker and marker.state is publication.Completeness.PUBLISHING and not options.take_over:
        raise UsageError(
            f"{marker.published_by} has been publishing since {marker.published_at}"
            " (wait for the end; if that never comes, --take-over)"
        )
    lists = (snapshot.prefix_lists, snapshot.port_lists)
    is_empty = not any((snapshot.security_groups, snapshot.network_interfaces, *lists))
    if is_empty and store.items and not options.allow_empty:
        raise UsageError(
            f"the documents hold nothing, and {count(len(store.items), 'key')} would be deleted"
            " (--allow-empty if that is meant)"
        )


def _snapshot_of(published: publication.Published, layout: KeyLayout, limits: Limits) -> Snapshot:
    """Return the published snapshot; nothing where it can't be read, as all of it will be replaced."""
    values = {item.key: item for item in published.items}
    try:
        return parse_documents(Everything(layout).documents(values).documents, limits)[0]
    except DocumentError as error:
        warn(f"what is published can't be read: {error.problems[0]}")
        return Snapshot(version="unreadable")


def _who() -> str:
    """Return who publishes, for others to see."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _print_plan(found: Sequence[Edited], plan: publication.Publication) -> None:
    """Print the changes, for people: objects and rules, then keys."""
    for edited in found:
        details = f": {'; '.join(edited.details)}" if edited.details else ""
        print(printable(f"{_SIGNS[edited.edit]} {edited.kind.value} {edited.name}{details}"))
    print(f"{count(plan.puts, 'key')} to write, {plan.deletions} to delete")


def _report(
    found: Sequence[Edited],
    plan: publication.Publication,
    revision: int | None,
    signer: Signer | None,
    *,
    is_written: bool,
) -> dict[str, object]:
    return {
        "published": is_written,
        "revision": revision,
        "serial": plan.marker.serial if is_written else None,
        "version": plan.marker.version,
        "keys_written": plan.puts,
        "keys_deleted": plan.deletions,
        "signed_by": [] if signer is None else signer.key_ids,
        "expires_at": None if signer is None else signer.expires_at,
        "edits": [
            {
                "edit": edited.edit.value,
                "kind": edited.kind.value,
                "name": edited.name,
                "details": list(edited.details),
            }
            for edited in found
        ],
    }


@dataclass(frozen=True, slots=True)
class Signer:
    """Sign publications."""

    keys: tuple[PrivateKey, ...]
    signed_at: int
    expires_at: int | None
    published: SignatureFile | None = None
    """What stands in the store; None for nothing that can be read."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self | None:
        """Read the keys that the options name; without any, None publishes without a signature.

        Raises:
            UsageError: the options do not fit together, or a key or a time is none.
        """
        if options.unsigned and options.key:
            raise UsageError("--unsigned: does not go with --key")
        if options.expires is not None and not options.key:
            raise UsageError("--expires: is part of a signature, and needs --key")
        keys, now = load_keys(options.key), int(time.time())
        expires_at = None if options.expires is None else now + parse_lifetime(options.expires)
        return cls(keys, now, expires_at) if keys else None

    @property
    def key_ids(self) -> list[str]:
        """Return the ids of the keys."""
        return [key.public.key_id for key in self.keys]

    @property
    def summary(self) -> str:
        """Return in words who signs, and until when."""
        until = "" if self.expires_at is None else f", good until {time_in_words(self.expires_at)}"
        return f"signed by {', '.join(self.key_ids)}{until}"

    def sign(self, contents: Mapping[str, bytes], serial: int) -> SignatureFile:
        """Sign contents; return the stored signature if it is of the same, by the same keys, for ever.

        Raises:
            UsageError: there is nothing to sign.
        """
        if not contents:
            raise UsageError("--key: documents that hold nothing can't be signed")
        manifest = Manifest.of(contents, serial=serial, signed_at=self.signed_at, expires_at=self.expires_at)
        published = self.published
        if published and manifest.expires_at is None and published.manifest.expires_at is None:
            signers = {signature.key_id for signature in published.signatures}
            if published.manifest.files == manifest.files and signers == set(self.key_ids):
                return published
        return SignatureFile(manifest, tuple(key.sign(manifest) for key in self.keys))


def beside_published(
    signer: Signer | None, published: publication.Published, layout: KeyLayout, *, is_unsigned: bool
) -> Signer | None:
    """Return the signer with the signature that stands in the store.

    Raises:
        UsageError: what is published is signed, and the options name neither a key nor --unsigned.
    """
    signature = publication.signature_in(published.items, layout)
    if signature is not None and signer is None and not is_unsigned:
        raise UsageError(
            "what is published is signed"
            " (--key FILE signs this, too; --unsigned if no host asks for signatures any more)"
        )
    if signer is None or signature is None:
        return signer
    try:
        return replace(signer, published=SignatureFile.parse(signature))
    except MalformedSignatureError:
        return signer


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
    except EtcdError as error:
        codes = (GrpcStatus.PERMISSION_DENIED, GrpcStatus.UNAUTHENTICATED)
        if isinstance(error, CallRefusedError) and error.code in codes:
            raise NotPermittedError(f"etcd: {error}") from error
        hint = f" ({LESS})" if isinstance(error, StoreTooLargeError) else ""
        raise SourceUnavailableError(f"etcd: {error}{hint}") from error
