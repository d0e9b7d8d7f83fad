"""What a client says on one stream to a relay: asks for a reservation, or for a circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.core.errors import CircuitRefused, RemoteProtocolError, ReservationRefused
from .exchange import receive_hop
from .wire import HopMessage, HopType, Peer, Status, Voucher, explain_status

if TYPE_CHECKING:
    from ...transports.core.interfaces import Stream
    from ...transports.core.peer_id import PeerId
    from .wire import Limit, Reservation

MIN_TTL = 60.0
"""Seconds that a reservation is taken to stand where its end lies in the past: the relay has just
given it, so that one of the clocks is wrong."""

MAX_TTL = 86_400.0
"""Seconds after which a reservation is asked for anew, whatever the relay says."""


async def reserve(stream: Stream, *, own: PeerId) -> tuple[Reservation, Limit | None]:
    """Ask for a reservation; return it, and the limit of the circuits that will come in.

    The caller bounds the time. Raises ReservationRefused, RemoteProtocolError for an answer or a
    voucher that is none, and what the stream raises.
    """
    relay = stream.connection.remote_peer
    async with stream:
        answer = await _ask(stream, HopMessage(HopType.RESERVE))
        if answer.status != Status.OK:
            why = explain_status(answer.status or 0)
            raise ReservationRefused(relay, answer.status or 0, why)
        if answer.reservation is None:
            raise RemoteProtocolError("a reservation without its end")
        if answer.reservation.voucher is not None:
            Voucher.from_envelope(answer.reservation.voucher, relay=relay, peer=own)
        await stream.send_eof()
        return answer.reservation, answer.limit


async def connect(stream: Stream, *, target: PeerId) -> Limit | None:
    """Make a stream a circuit to a peer; return its limit, None if it has none.

    The caller bounds the time, and resets the stream after an error. Raises as `reserve`, but
    CircuitRefused.
    """
    answer = await _ask(stream, HopMessage(HopType.CONNECT, Peer(target)))
    if answer.status != Status.OK:
        why = explain_status(answer.status or 0)
        raise CircuitRefused(stream.connection.remote_peer, answer.status or 0, why)
    return answer.limit


def ttl_of(reservation: Reservation, wall_clock: float) -> float:
    """Return the seconds that a reservation stands, `wall_clock` being those since 1970."""
    ttl = reservation.expire - wall_clock
    return min(max(ttl, MIN_TTL) if ttl <= 0 else ttl, MAX_TTL)


async def _ask(stream: Stream, message: HopMessage) -> HopMessage:
    await stream.send(message.frame())
    answer = await receive_hop(stream)
    if answer.type is not HopType.STATUS:
        raise RemoteProtocolError("a relay that answers a request with a request")
    return answer
