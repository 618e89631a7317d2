"""Source of guardrails: reads a file or directory, verifies its signature, and parses it (§13.4)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sgagent.documents import DocumentFile, Limits
from sgagent.ports import ReadGuardrails, Wake
from sgagent.settings import Settings, SignatureSettings
from sgagent.signatures import Signed
from sgagent.sources.files.collector import CollectedDocuments
from sgagent.sources.files.source import FileSource
from sgagent.sources.verified_parse import (
    ReadEnforced,
    SignaturePolicy,
    VerifiedParser,
    guardrails_signature_file,
    read_signature,
)


class GuardrailFiles:
    """Reads guardrails from a path; implements :class:`sgagent.ports.GuardrailSource`."""

    def __init__(self, path: Path, limits: Limits, policy: SignaturePolicy | None = None) -> None:
        """Take the path of a file, or of a directory of files.

        Args:
            path: it need not exist yet.
            limits: the largest accepted files.
            policy: the keys of which one has to sign; None requires no signature.
        """
        self._limits = limits
        self._policy = policy or SignaturePolicy()
        self._files = FileSource(path, limits, VerifiedParser(limits, self._policy))
        self._known: tuple[CollectedDocuments, ReadGuardrails] | None = None

    @classmethod
    def configured(
        cls, settings: Settings, read_enforced: ReadEnforced | None = None
    ) -> GuardrailFiles | None:
        """Return the source of a configuration; None where it has none.

        Args:
            settings: the configuration.
            read_enforced: reads the newest signature that this host took; None reads the state directory.
        """
        configured = settings.guardrails
        if configured.path is None:
            return None
        kept = guardrails_signature_file(settings.state.directory)
        policy = SignaturePolicy(
            SignatureSettings(public_keys=configured.keys), read_enforced or (lambda: read_signature(kept))
        )
        return cls(configured.path, settings.limits, policy)

    def fetch(self) -> ReadGuardrails:
        """Return the statements; the identical object while the files are the same.

        Raises:
            DocumentError: they have errors, or no valid signature of one of the keys.
            SourceUnavailableError: there is no file, one can't be read, or they keep changing.
        """
        found = self._files.collect()
        if self._known is None or self._known[0] != found:
            self._known = found, self._read(found)
        read = self._known[1]
        if read.signed is not None:
            self._policy.check_age(read.signed, found.place)
        return read

    def _read(self, found: CollectedDocuments) -> ReadGuardrails:
        from sgagent.documents.guardrails import parse_guardrails  # noqa: PLC0415 - most hosts have none

        signed = self._verify(found)
        files = [DocumentFile(*one) for one in found.documents.items()]
        guardrails, warnings = parse_guardrails(files, self._limits)
        return ReadGuardrails(guardrails=guardrails, problems=(*found.skipped, *warnings), signed=signed)

    def _verify(self, found: CollectedDocuments) -> Signed | None:
        """Return the verified signature; None where none is required."""
        if not self._policy.wants_signature:
            return None
        if found.signature is None:
            self._policy.missing(found.place)  # raises, as a signature is required
            return None
        return self._policy.verify_whole(found.documents, found.signature, found.place)

    def refresh(self) -> None:
        """Make the next fetch read the files at once."""
        self._files.refresh()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when the files or their signature have changed, until the context ends."""
        return self._files.watch(wake)
