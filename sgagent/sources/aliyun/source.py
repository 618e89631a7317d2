"""Aliyun source: polls the ECS API for this host's definitions."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from sgagent.core.binding import HandBinding
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.policy import Endpoint
from sgagent.documents import Limits
from sgagent.ports import Delivery, Wake
from sgagent.settings import AliyunSourceSettings
from sgagent.sources.aliyun.credentials import METADATA_ENDPOINT, read_instance_id
from sgagent.sources.aliyun.pagination import Api, Paginator
from sgagent.sources.aliyun.reader import ApiSubject, read_everything_about
from sgagent.sources.endpoint_cache import EndpointCache
from sgagent.sources.poller import Backoff, Poller
from sgagent.sources.verified_parse import Failure, VerifiedParser, delivered

FIRST_ANSWER_SECONDS = 20.0
"""How long the first fetch waits for the watch's thread; later fetches do not wait."""


class AliyunSource:
    """Polls the definitions of a host; implements :class:`Source`.

    During a watch, only the watch's thread sends requests, and a fetch returns its newest result. Without a
    watch, a fetch sends requests.
    """

    def __init__(
        self,
        settings: AliyunSourceSettings,
        limits: Limits,
        api: Api,
        *,
        by_hand: tuple[HandBinding, ...] | None,
        endpoint_cache: EndpointCache | None = None,
        random: Callable[[], float] = random.random,
        read_instance_id: Callable[[], str] = read_instance_id,
    ) -> None:
        """Store the settings without sending a request.

        Args:
            settings: the endpoint and this host's identity.
            limits: the largest accepted answers.
            api: the client.
            by_hand: the configured bindings of this host's links; None reads everything in the region.
            endpoint_cache: the cached addresses of the API; None for a new cache without a file.
            random: returns jitter from 0 (inclusive) to 1 (exclusive).
            read_instance_id: reads this host's instance id from the metadata service.
        """
        self._settings = settings
        self._limits = limits
        self._by_hand = by_hand
        self._read_instance_id = read_instance_id
        self._instance_id = settings.instance_id
        self._endpoint_cache = endpoint_cache or EndpointCache(settings.api.host, settings.api.port)
        self._paginator = Paginator(api, random)
        self._backoff = Backoff(settings.poll_seconds, random)
        self._poller = Poller(self._poll, self._paginator.break_off)
        self._asking = threading.Lock()
        self._parser = VerifiedParser(limits)
        self._outcome: Delivery | Failure = Failure(f"{settings.api}: no answer yet")

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot of the API.

        Raises:
            DocumentError: the answers have errors, or are too large.
            SourceUnavailableError: the API can't be reached, or its answers are incomplete.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(FIRST_ANSWER_SECONDS)
        else:
            self._paginator.resume()
            self._poll()
        return delivered(self._outcome)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached endpoints of the API, and that of the metadata service if it is used."""
        asked_too = (METADATA_ENDPOINT,) if self._settings.uses_metadata else ()
        return (*self._endpoint_cache.endpoints(), *asked_too)

    def refresh(self) -> None:
        """Send the next requests now."""
        self._poller.hurry()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when the result of :meth:`fetch` changes, until the context ends."""
        self._paginator.resume()
        return self._poller.watch(wake)

    def _poll(self) -> tuple[bool, float]:
        """Read once; return whether the result changed, and the seconds until the next read."""
        with self._asking:
            before = (self._outcome, self.endpoints())
            self._outcome = self._ask()
            is_changed = before != (self._outcome, self.endpoints())
        if isinstance(self._outcome, Failure) and self._outcome.problems is None:
            return is_changed, self._backoff.after_failure()
        return is_changed, self._backoff.after_answer()

    def _ask(self) -> Delivery | Failure:
        """Read the host's definitions, and return the delivery or why there is none."""
        with suppress(OSError):  # cached addresses stay valid; without any, the request fails with a message
            self._endpoint_cache.find()
        try:
            documents = read_everything_about(self._subject(), self._paginator, self._limits)
            return self._parser.take(documents, None, self._settings.place)
        except (DocumentError, SourceUnavailableError) as error:
            return Failure.of(error)

    def _subject(self) -> ApiSubject:
        """Return the instance, interfaces and groups to read.

        Raises:
            SourceUnavailableError: the metadata service does not return the instance id.
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
