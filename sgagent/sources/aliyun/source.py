"""Follow what the ECS API says about this host."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.host_facts import HandBinding
from sgagent.core.policy import Endpoint
from sgagent.documents import Limits
from sgagent.ports import Delivery, Wake
from sgagent.settings import AliyunSourceSettings
from sgagent.sources.aliyun.credentials import METADATA_ENDPOINT, read_instance_id
from sgagent.sources.aliyun.pagination import Api, Asking
from sgagent.sources.aliyun.reader import ApiSubject, read_everything_about
from sgagent.sources.endpoint_cache import Whereabouts
from sgagent.sources.poller import Pace, Poller
from sgagent.sources.verified_parse import Acceptance

FIRST_ANSWER_SECONDS = 20.0
"""How long the first fetch waits for an answer while a watch asks in its thread; later ones do not wait."""


class AliyunSource:
    """Read again and again what concerns a host; implements :class:`Source`.

    While somebody watches, only the thread of the watch speaks with the API, and a fetch hands over the
    newest that it has. Without a watch, a fetch asks itself.
    """

    def __init__(
        self,
        settings: AliyunSourceSettings,
        limits: Limits,
        api: Api,
        *,
        by_hand: tuple[HandBinding, ...] | None,
        whereabouts: Whereabouts | None = None,
        random: Callable[[], float] = random.random,
        read_instance_id: Callable[[], str] = read_instance_id,
    ) -> None:
        """Take what is asked and how; nothing is asked yet.

        Args:
            settings: where the API is, and who this host is there.
            limits: what answers may cost.
            api: who answers.
            by_hand: what the configuration binds links of this host to; None reads everything of the region.
            whereabouts: where the API is; None looks that up and forgets it.
            random: spreads the questions of many hosts; from 0, included, to 1.
            read_instance_id: asks the metadata service who this host is.
        """
        self._settings = settings
        self._limits = limits
        self._by_hand = by_hand
        self._read_instance_id = read_instance_id
        self._instance_id = settings.instance_id
        self._whereabouts = whereabouts or Whereabouts(settings.api.host, settings.api.port)
        self._asker = Asking(api, random)
        self._pace = Pace(settings.poll_seconds, random)
        self._poller = Poller(self._poll, self._asker.break_off)
        self._asking = threading.Lock()
        self._acceptance = Acceptance(limits)
        self._outcome: _Outcome = SourceUnavailableError(f"{settings.api}: has not answered yet")

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot that the API delivered.

        Raises:
            DocumentError: what it delivered has errors of form, or is too large.
            SourceUnavailableError: it can't be reached, or a part of its answers is missing.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(FIRST_ANSWER_SECONDS)
        else:
            self._asker.mend()
            self._poll()
        outcome = self._outcome
        if isinstance(outcome, Delivery):
            return outcome
        raise outcome.with_traceback(None)  # it is raised again and again, and would remember each time

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the API was found last, and the metadata service where that is asked."""
        asked_too = (METADATA_ENDPOINT,) if self._settings.uses_metadata else ()
        return (*self._whereabouts.endpoints(), *asked_too)

    def refresh(self) -> None:
        """Ask now, whenever the next question is due."""
        self._poller.hurry()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when the API delivers something else, until the context is left."""
        self._asker.mend()
        return self._poller.watch(wake)

    def _poll(self) -> tuple[bool, float]:
        """Ask once; return whether anything changed, and how many seconds there are to the next question."""
        with self._asking:
            before = (_comparable(self._outcome), self.endpoints())
            self._outcome = self._ask()
            is_changed = before != (_comparable(self._outcome), self.endpoints())
        if isinstance(self._outcome, SourceUnavailableError):
            return is_changed, self._pace.after_failure()
        return is_changed, self._pace.after_answer()

    def _ask(self) -> _Outcome:
        """Return what comes of reading everything that concerns the host."""
        with suppress(OSError):  # what was found before still counts; if nothing was, who asks says so
            self._whereabouts.find()
        try:
            documents = read_everything_about(self._subject(), self._asker, self._limits)
            return self._acceptance.take(documents, None, self._settings.place)
        except (DocumentError, SourceUnavailableError) as error:
            return error

    def _subject(self) -> ApiSubject:
        """Return whose definitions are wanted.

        Raises:
            SourceUnavailableError: the metadata service does not say who this host is.
        """
        if self._by_hand is None:
            return ApiSubject(is_everything=True)
        if self._instance_id is None and self._settings.uses_metadata:
            self._instance_id = self._read_instance_id()
        interfaces = {one.network_interface_id for one in self._by_hand if one.network_interface_id}
        groups = {
            group for one in self._by_hand if not one.network_interface_id for group in one.security_group_ids
        }
        return ApiSubject(
            instance_id=self._instance_id,
            network_interface_ids=tuple(sorted(interfaces)),
            security_group_ids=tuple(sorted(groups)),
        )


_Outcome = Delivery | DocumentError | SourceUnavailableError


def _comparable(outcome: _Outcome) -> object:
    """Return a value that is the same only for outcomes that mean the same."""
    return outcome if isinstance(outcome, Delivery) else (type(outcome), str(outcome))
