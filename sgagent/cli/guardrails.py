"""Guardrails on the command line: which are meant, and whether a policy keeps them (§13.4)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from sgagent.cli import inputs
from sgagent.cli.main import add_option
from sgagent.core.binding import HostFacts, bind
from sgagent.core.errors import SourceUnavailableError, UsageError
from sgagent.core.guardrails import Guardrails, dns_names_of
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution
from sgagent.core.resolved_rules import KnownNames
from sgagent.ports import Delivery, ReadGuardrails
from sgagent.settings import Settings


def add_guardrails_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--guardrails PATH``."""
    text = "statements that the policy must keep: a file or directory, instead of the configured one"
    add_option(parser, "--guardrails PATH", text, type=Path)


def read_guardrails(settings: Settings, options: argparse.Namespace) -> ReadGuardrails:
    """Return the guardrails of the command line, else of the configuration; none where there are none.

    Those of the command line need no signature.

    Raises:
        UsageError: the path on the command line does not exist.
        SourceUnavailableError: the configured ones can't be read.
        DocumentError: they have errors, or the configured ones no valid signature.
    """
    if options.guardrails is None and settings.guardrails.path is None:
        return ReadGuardrails(guardrails=())
    from sgagent.sources.guardrails import GuardrailFiles  # noqa: PLC0415 - few policies have guardrails

    if options.guardrails is None:
        source = GuardrailFiles.configured(settings)
        return ReadGuardrails(guardrails=()) if source is None else source.fetch()
    try:
        return GuardrailFiles(options.guardrails, settings.limits).fetch()
    except SourceUnavailableError as error:
        raise UsageError(f"--guardrails {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Hold the policies of a command to guardrails."""

    settings: Settings
    options: argparse.Namespace
    read: ReadGuardrails

    @classmethod
    def of(cls, settings: Settings, options: argparse.Namespace) -> Keeper:
        """Return the keeper of the guardrails of a command; raises as :func:`read_guardrails`."""
        return cls(settings=settings, options=options, read=read_guardrails(settings, options))

    def here(self, resolution: Resolution, delivery: Delivery, names: KnownNames | None = None) -> Resolution:
        """Return a resolution with the violations of guardrails on its own interfaces.

        Args:
            resolution: of the definitions.
            delivery: the definitions.
            names: the addresses of names; None asks, as far as the options allow it.
        """
        return self._kept(resolution, delivery, names, self.read.guardrails, resolution.policy)

    def everywhere(self, resolution: Resolution, delivery: Delivery) -> Resolution:
        """Return a resolution with the violations of guardrails anywhere, unless interfaces are given.

        A group that is attached nowhere is checked by itself, but not against ``always``.
        """
        if not self.read.guardrails or self.options.interface:
            return self.here(resolution, delivery)
        names = self.names()
        attached, alone = _policies_everywhere(self.settings, delivery, names)
        found = self._kept(resolution, delivery, names, self.read.guardrails, attached)
        closing = tuple(one for one in self.read.guardrails if one.demanded is Policy.DROP)
        return self._kept(found, delivery, names, closing, alone)

    def _kept(
        self,
        resolution: Resolution,
        delivery: Delivery,
        names: KnownNames | None,
        guardrails: Guardrails,
        policy: ResolvedPolicy,
    ) -> Resolution:
        if not guardrails:
            return resolution
        from sgagent.analysis.guardrails import with_violations  # noqa: PLC0415 - few policies have guardrails

        known = self.names() if names is None else names
        found = with_violations(resolution, guardrails, delivery.snapshot, policy=policy, names=known)
        return replace(found, problems=tuple(dict.fromkeys((*self.read.problems, *found.problems))))

    def names(self) -> KnownNames:
        """Return the addresses of the statements' names."""
        asked = dns_names_of(self.read.guardrails)
        if not asked:
            return {}
        options = self.options if "no_dns" in self.options else None
        return inputs.dns_answers(self.settings, options).of(asked, HostFacts()).addresses


def _policies_everywhere(
    settings: Settings, delivery: Delivery, names: KnownNames
) -> tuple[ResolvedPolicy, ResolvedPolicy]:
    """Return the policies of each combination of groups that is attached, and of each other group."""
    from sgagent.analysis.lint.subject import make_subject  # noqa: PLC0415 - few policies have guardrails

    by_hand = bind(delivery.snapshot, settings.interfaces, HostFacts(), automatically=False).all
    at, exemptions = inputs.latest_time(settings), inputs.exemptions(settings)
    subject = make_subject(delivery.snapshot, exemptions, by_hand=by_hand, at=at, names=names)

    def policy(*, are_attached: bool) -> ResolvedPolicy:
        attachments = (
            attachment for attachment in subject.attachments if bool(attachment.interfaces) is are_attached
        )
        judges = (
            (attachment.interfaces or attachment.judge.security_group_ids, attachment.judge)
            for attachment in attachments
        )
        mode = settings.enforcement.mode
        named = (replace(judge, name=", ".join(names), mode=mode) for names, judge in judges)
        return ResolvedPolicy(interfaces=tuple(named))

    return policy(are_attached=True), policy(are_attached=False)
