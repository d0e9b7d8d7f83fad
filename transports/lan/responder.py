"""The one place that touches zeroconf: runs on asyncio, knows no peers and no addresses.

Its names are random at each start, so that nobody can be followed from one network to another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from zeroconf import IPVersion, RecordUpdateListener, ServiceInfo, const

# What its own documentation imports from `zeroconf`, which does not list it.
from zeroconf._dns import DNSQuestion, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncZeroconf

from .wire import NAME_LENGTH, PREFIX, SERVICE, random_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zeroconf import RecordUpdate, Zeroconf

    from .machine import Announcement

logger = logging.getLogger(__name__)

TTL = 120
"""Seconds that our records hold: what js takes, and twice the interval of isthmus's questions."""


class Responder:
    """Says and hears on the interfaces it is given; `heard` is called with TXT data and a TTL."""

    def __init__(self, heard: Callable[[bytes, float], object]) -> None:
        self._listener = _Listener(heard)
        self._name = random_name(secrets.token_bytes(NAME_LENGTH))
        self._server = random_name(secrets.token_bytes(NAME_LENGTH))
        self._zeroconf: AsyncZeroconf | None = None
        self._info: ServiceInfo | None = None
        self._announcing: asyncio.Future[object] | None = None

    async def use(self, ips: Sequence[str]) -> list[str]:
        """Speak and listen on the interfaces with these IPv4 addresses; return what cannot be."""
        zeroconf = self._zeroconf
        if not ips:
            if zeroconf is not None:
                await zeroconf.async_update_interfaces([])
            return []
        if zeroconf is None:
            try:
                zeroconf = AsyncZeroconf(interfaces=list(ips), ip_version=IPVersion.V4Only)
            except OSError as error:
                logger.debug("no multicast on %s: %s", ips, error)
                return list(ips)
            self._zeroconf = zeroconf
            await zeroconf.zeroconf.async_wait_for_start()
            zeroconf.zeroconf.async_add_listener(self._listener, None)
        else:
            await zeroconf.async_update_interfaces(list(ips), IPVersion.V4Only)
        senders = {each.sock_name[0] for each in zeroconf.zeroconf.engine.senders}
        return [ip for ip in ips if ip not in senders]

    async def announce(self, announcement: Announcement | None) -> None:
        """Answer to who asks from now on, and say so unasked; None: say goodbye."""
        before, self._info = self._info, None
        zeroconf = self._zeroconf
        if zeroconf is None:
            return
        self._stop_announcing()
        if announcement is None:
            if before is not None:
                self._announcing = _future(await zeroconf.async_unregister_service(before))
            return
        self._info = ServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            port=announcement.port,
            parsed_addresses=list(announcement.addresses),
            server=f"{self._server}.local.",
            properties=announcement.text,
            host_ttl=TTL,
            other_ttl=TTL,
        )
        if before is None:
            # Nobody else has this name, so there is no need to ask for 0.75 s whether one does.
            sent = await zeroconf.async_register_service(self._info, cooperating_responders=True)
        else:
            sent = await zeroconf.async_update_service(self._info)
        self._announcing = _future(sent)

    async def ask(self) -> None:
        """Ask who is there; a packet with one question, the only ones that js answers."""
        if self._zeroconf is not None:
            question = DNSOutgoing(const._FLAGS_QR_QUERY)  # noqa: SLF001 - zeroconf's table of numbers
            question.add_question(DNSQuestion(SERVICE, const._TYPE_PTR, const._CLASS_IN))  # noqa: SLF001
            self._zeroconf.zeroconf.async_send(question)

    async def close(self) -> None:
        """Say goodbye and close every socket."""
        self._stop_announcing()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()

    def _stop_announcing(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None


class _Listener(RecordUpdateListener):
    """Takes every TXT record that has an address of a peer, whatever its name.

    ServiceBrowser would not do: it keeps one record of each name where js and rust have several,
    and rust's names are none of the service.
    """

    def __init__(self, heard: Callable[[bytes, float], object]) -> None:
        self._heard = heard

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        del zc
        for update in records:
            record = update.new
            if not isinstance(record, DNSText) or PREFIX not in record.text:
                continue
            # What only fell out of the cache is no goodbye: its addresses may be in a newer record.
            if not record.ttl or not record.is_expired(now):
                self._heard(record.text, float(record.ttl))


def _future(awaitable: object) -> asyncio.Future[object]:
    assert isinstance(awaitable, asyncio.Future)
    return awaitable
