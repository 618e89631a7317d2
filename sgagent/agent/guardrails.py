"""Guardrails as the agent has them: the newest statements, and the verdict on definitions (§13.4)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from sgagent.agent.state.directory import fault_of, write_durably
from sgagent.core.errors import DocumentError, Origin, Problem, Severity, SourceUnavailableError
from sgagent.core.guardrails import Guardrails, ResolvedGuardrail, Violation, resolve_guardrails
from sgagent.core.memo import Memo
from sgagent.core.model import Mode, Snapshot
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, closed_interface
from sgagent.core.resolved_rules import KnownNames
from sgagent.ports import GuardrailSource, Wake
from sgagent.signatures import Signed
from sgagent.sources.verified_parse import encode_signature, guardrails_signature_file

UNREAD = "guardrails_unread"
"""The code of the problem that definitions can't be held to guardrails that nobody could read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownGuardrails:
    """The statements that hold, and why newer ones do not."""

    place: str = ""
    """Where they are configured; empty where there are none."""

    guardrails: Guardrails | None = None
    """None where they were never read."""

    warnings: tuple[Problem, ...] = ()
    fault: str | None = None
    """Why what is there now can't be taken; what was read before holds on."""

    def hold(
        self,
        resolution: Resolution,
        definitions: Snapshot,
        policy: ResolvedPolicy,
        names: KnownNames,
        memo: Memo,
    ) -> Guarded:
        """Check a resolution against the statements, and return it with the violations.

        Args:
            resolution: of the definitions.
            definitions: what the names of objects mean.
            policy: of the resolution, in the modes that hold.
            names: what the DNS says.
            memo: of what was checked before.
        """
        if not self.place:
            return Guarded(resolution)
        found = replace(resolution, problems=(*resolution.problems, self._unread()))
        statements: tuple[ResolvedGuardrail, ...] = ()
        if self.guardrails is not None:
            from sgagent.analysis.guardrails import with_violations  # noqa: PLC0415 - few hosts have guardrails

            found = with_violations(
                resolution, self.guardrails, definitions, policy=policy, names=names, memo=memo
            )
            statements, _ = resolve_guardrails(self.guardrails, definitions, names, memo)
        added = found.problems[len(resolution.problems) :]
        if not any(judge.mode is Mode.ENFORCE for judge in policy.bound):
            added = tuple(map(Problem.as_warning, added))
        errors = tuple(problem for problem in added if problem.severity is Severity.ERROR)
        return Guarded(replace(found, problems=(*resolution.problems, *added)), errors, statements)

    def _unread(self) -> Problem:
        message = f"guardrails are configured and can't be read: {self.fault or 'not read yet'}"
        remedy = "repair them; until then what was in force before stays"
        return Problem.error(Origin(file=self.place), UNREAD, None, message, remedy)


NO_GUARDRAILS = KnownGuardrails()


@dataclass(frozen=True, slots=True)
class Guarded:
    """A resolution under the statements."""

    resolution: Resolution
    """With what breaks them, also as problems."""

    errors: tuple[Problem, ...] = ()
    """Those of its problems for which new definitions are refused."""

    statements: tuple[ResolvedGuardrail, ...] = ()
    """As the definitions resolve them."""

    def staying(self, before: ResolvedPolicy | None, exemptions: Exemptions) -> Resolution:
        """Return the resolution that holds if names or links make good definitions break a statement by now.

        The rules in force on an interface stay, and one that was not judged is closed.

        Args:
            before: the policy in force; None where it is not known, and the definitions stay as they are.
            exemptions: traffic that no policy can block.
        """
        refused = set(self.errors)
        problems = tuple(one.as_warning() if one in refused else one for one in self.resolution.problems)
        found = replace(self.resolution, problems=problems)
        broken = {one.interface for one in self.resolution.violations if one.is_refusal}
        if before is None or not broken:
            return found
        known = {judge.name: judge for judge in before.bound}

        def stays(judge: ResolvedInterface) -> ResolvedInterface:
            if judge.name not in broken:
                return judge
            return known.get(judge.name) or closed_interface(judge.name, exemptions, judge.mode)

        return replace(found, policy=found.policy.with_judges(stays))


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailReport:
    """The outcome of the statements in a step."""

    known: KnownGuardrails = NO_GUARDRAILS
    violations: tuple[Violation, ...] = ()
    """Of the newest definitions where these are refused, else of those in force."""

    refused: str | None = None
    """The version that is refused for them."""

    statements: tuple[ResolvedGuardrail, ...] = ()
    """As the newest candidate resolves them, which is the one in force if one is."""

    def following(self, guarded: Guarded, version: str, *, is_new: bool) -> GuardrailReport:
        """Return the report after one more candidate: the first that is refused counts, else the last.

        Args:
            guarded: what the candidate comes to.
            version: of it.
            is_new: whether it would replace what is in force.
        """
        report = replace(self, statements=guarded.statements)
        if self.refused is not None:
            return report
        refused = version if is_new and guarded.errors else None
        return replace(report, violations=guarded.resolution.violations, refused=refused)

    @property
    def refusing(self) -> frozenset[tuple[str, str]]:
        """Return the refused version with the id of each statement that refuses it."""
        refusing = (one for one in self.violations if one.is_refusal) if self.refused else ()
        return frozenset((self.refused or "", one.guardrail.guardrail_id) for one in refusing)


NO_REPORT = GuardrailReport()


class GuardrailWatch:
    """Keep the statements read, and remember whose signature they had."""

    def __init__(self, source: GuardrailSource | None, place: str, state_directory: Path) -> None:
        """Take where they come from; None where there are none."""
        self._source = source
        self._place = place if source is not None else ""
        self._file = guardrails_signature_file(state_directory)
        self._signed: Signed | None = None
        self.known = KnownGuardrails(place=self._place)
        self.fault: str | None = None
        """Why the signature could not be kept."""

    def read(self) -> KnownGuardrails:
        """Return the newest statements; a failed reading leaves those before in force."""
        if self._source is None:
            return self.known
        try:
            found = self._source.fetch()
        except (DocumentError, SourceUnavailableError) as error:
            self.known = replace(self.known, fault=str(error))
            return self.known
        self._keep(found.signed)
        self.known = KnownGuardrails(place=self._place, guardrails=found.guardrails, warnings=found.problems)
        return self.known

    def _keep(self, signed: Signed | None) -> None:
        """Write down who signed them, so that nothing older takes their place."""
        if signed is None or signed == self._signed:
            return
        content = encode_signature(signed)
        complaint = "the signature of the guardrails could not be saved"
        self.fault = fault_of(lambda: write_durably(self._file, content), complaint)
        self._signed = None if self.fault else signed

    def refresh(self) -> None:
        """Make the next reading look for itself."""
        if self._source is not None:
            self._source.refresh()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when there may be other statements, until the context ends."""
        return nullcontext() if self._source is None else self._source.watch(wake)
