"""One relay's reservation, and what is done so that it stands.

Sans-IO: `want` and `rest` say whether it is to be held at all. When `handle_timeout` says so an
attempt begins; what becomes of it is said by `connected`, then `reserved`, `refused` or `failed`,
and `lost` says that the connection which carries the reservation has ended. `news` is anything
that makes it worth trying at once. A reservation that is renewed stands until the new one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

from ...transports.core.errors import ConfigError, LocalProtocolError

MIN_RENEWAL = 30.0
"""Seconds that a reservation is left alone at least, unless it is too short for that."""

RENEWAL_SLACK = 300.0
"""Seconds before its end at which a reservation is renewed at the latest, if it is long enough."""

RENEWAL_SHARE = 0.75
"""Of its time, after which a reservation is renewed at the latest; rust does so, too."""

RENEWAL_DELAY = 2.0
"""Seconds before a renewal that failed is tried again; doubles."""

NEWS_INTERVAL = 1.0
"""Seconds between news that count: anybody on the LAN can make some up."""

STEADY_TIME = 10.0
"""Seconds that a reservation must have stood for its loss to be met at once: a relay that drops
what it has just given is asked again no faster than one that is away."""


class SupervisorState(Enum):
    """Where a relay stands."""

    RESTING = "resting"
    """Nothing is wanted of it."""
    CONNECTING = "connecting"
    RESERVING = "reserving"
    """Connected; it has been asked."""
    RESERVED = "reserved"
    """Peers reach this node through it."""
    WAITING = "waiting"
    """It was not reached, and is tried again."""
    REFUSED = "refused"
    """It said no, and is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorPolicy:
    """How often a relay is tried; delays are seconds from one start to the next."""

    eager_time: float = 63.0
    """After a loss for which attempts follow each other closely: most losses are a relay that
    starts again, or a network that comes back. A minute, and the attempt that its end may cut."""

    eager_delay: float = 0.7
    """Between two attempts in that time at most, so that a relay is found within a second."""

    initial_delay: float = 0.1
    """Before the first attempt after a loss."""

    max_delay: float = 30.0
    """The longest after a failure, reached by doubling after the eager time."""

    refusal_delay: float = 4.0
    """After a refusal in the eager time: rust's relays allow thirty requests in two minutes."""

    lone_delay: float = 1.5
    """The same, while no other relay gives a reservation, for the first `lone_time` seconds."""

    lone_time: float = 15.0

    max_refusal_delay: float = 300.0
    """The longest after a refusal, reached by doubling after the eager time."""

    attempt_time: float = 10.0
    """For one attempt, where nothing is known of the path."""

    known_attempt_time: float = 1.0
    """For one attempt in the eager time, if the relay has been connected before: packets that were
    lost with the path are sent again only seconds after it is back."""

    round_trips: float = 8.0
    """Round trips that an attempt has at least: TCP, Noise and the request take four."""

    jitter: float = 0.2
    """The share by which delays are shortened at random, and after the eager time lengthened, so
    that not all peers of a relay come at once."""

    def __post_init__(self) -> None:
        if not 0 < self.initial_delay <= self.eager_delay <= self.max_delay:
            raise ConfigError("a supervisor's delays must grow from initial to eager to max")
        if not 0 < self.lone_delay <= self.refusal_delay <= self.max_refusal_delay:
            raise ConfigError("delays after refusals must grow from lone to refusal to max")
        if not 0 < self.known_attempt_time <= self.attempt_time:
            raise ConfigError("known_attempt_time must be above 0 and at most attempt_time")
        if not 0 <= self.jitter < 1:
            raise ConfigError("jitter must be at least 0 and below 1")


EAGER_GROWTH = 2.5
"""From one delay to the next in the eager time: 0.1, 0.25, 0.625, 0.7."""


class Supervisor:
    """Keeps one reservation; `random` arguments are drawn uniformly from 0 to 1."""

    def __init__(self, policy: SupervisorPolicy | None = None) -> None:
        self._policy = policy or SupervisorPolicy()
        self.state = SupervisorState.RESTING
        self.reason = ""
        """Why it waits or was refused, or what it has lost."""
        self.until = -inf
        """When the reservation ends, while one stands."""
        self.round_trip: float | None = None
        """Seconds to the relay and back, once they were measured."""
        self.is_attempting = False
        self._is_wanted = False
        self._due = inf
        self._news_at = -inf
        self._eager_since = -inf
        self._delay: float | None = None
        self._reserved_at = -inf
        self._refused_since: float | None = None
        self._refused_at = -inf
        self._late_refusals = 0
        self._renewal_failures = 0

    def __repr__(self) -> str:
        return f"<Supervisor: {self.state.value}>"

    @property
    def is_wanted(self) -> bool:
        """Whether a reservation is to be held."""
        return self._is_wanted

    @property
    def is_reserved(self) -> bool:
        """Whether a reservation stands."""
        return self.state is SupervisorState.RESERVED

    # What its owner wants

    def want(self, now: float) -> None:
        """Have a reservation held from now on; harmless twice."""
        if self._is_wanted:
            return
        self._is_wanted = True
        self._begin_anew(now)
        self.state = SupervisorState.CONNECTING
        self._due = now

    def rest(self) -> None:
        """Hold none any more; what stood is let go of, and what is under way comes to nothing."""
        self._is_wanted = False
        self.state = SupervisorState.RESTING
        self.reason = ""
        self.until = -inf
        self._due = inf

    # What becomes of an attempt

    def connected(self) -> None:
        """Note that the attempt has a connection, and asks for the reservation."""
        self._check_attempt()
        if self._is_wanted and not self.is_reserved:
            self.state = SupervisorState.RESERVING

    def reserved(self, ttl: float, now: float) -> None:
        """Note that the attempt succeeded: a reservation stands for `ttl` seconds."""
        self._end_attempt()
        if not self._is_wanted:
            return
        self.state = SupervisorState.RESERVED
        self.reason = ""
        self.until = now + ttl
        self._reserved_at = now
        self._refused_since = None
        self._late_refusals = self._renewal_failures = 0
        self._due = now + renewal_after(ttl)

    def failed(self, now: float, random: float, reason: str) -> None:
        """Note that the attempt failed for want of a connection or of an answer."""
        self._end_attempt()
        if not self._is_wanted:
            return
        self.reason = reason
        if self.is_reserved:
            self._renew_later(now, random)
        else:
            self.state = SupervisorState.WAITING
            self._due = now + self._next_delay(now, random)

    def refused(self, now: float, random: float, reason: str, *, is_alone: bool = False) -> None:
        """Note that the relay has said no; `is_alone`: and no other one has said yes."""
        self._end_attempt()
        if not self._is_wanted:
            return
        self.reason = reason
        if self.is_reserved:
            # What stands, stands to its end.
            self._renew_later(now, random)
            return
        self.state = SupervisorState.REFUSED
        self._refused_at = now
        if self._refused_since is None:
            self._refused_since = now
        delay = self._refusal_delay(now - self._refused_since, is_alone=is_alone)
        self._due = now + delay * (1 - self._policy.jitter * random)

    # What happens besides

    def lost(self, now: float, random: float, reason: str) -> None:
        """Note that the connection to the relay has ended, which carried the reservation.

        One that had refused, a while before, may have started again: it is asked anew.
        """
        if self.state is SupervisorState.REFUSED and now - self._refused_at >= NEWS_INTERVAL:
            self._begin_anew(now)
            self._due = min(self._due, now + self._next_delay(now, random))
        if not self.is_reserved:
            return
        self.reason = reason
        self.until = -inf
        self._eager_since = now
        if now - self._reserved_at >= STEADY_TIME:
            self._delay = None
        self.state = SupervisorState.CONNECTING
        if not self.is_attempting:
            self._due = now + self._next_delay(now, random)

    def renew(self, now: float) -> None:
        """Have a reservation that stands made again at once, as on a better connection."""
        if self.is_reserved and now - self._news_at >= NEWS_INTERVAL:
            self._news_at = now
            self._due = min(self._due, now)

    def news(self, now: float) -> None:
        """Note a sign of the relay, a change of the network, or the loss of another relay."""
        if not self._is_wanted or self.is_reserved or now - self._news_at < NEWS_INTERVAL:
            return
        self._news_at = now
        self._begin_anew(now)
        self._due = min(self._due, now)

    # When to act

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to decide; infinite if never."""
        due = inf if self.is_attempting else self._due
        return min(due, self.until) if self.is_reserved else due

    def handle_timeout(self, now: float) -> bool:
        """Say whether an attempt begins now; it has until `patience` to succeed."""
        if self.is_reserved and now >= self.until:
            self.lost(now, 1.0, "the reservation has expired")
            self._due = now
        if self.is_attempting or now < self._due:
            return False
        self.is_attempting = True
        self._due = inf
        if not self.is_reserved:
            self.state = SupervisorState.CONNECTING
        return True

    def patience(self, now: float) -> float:
        """Return the seconds that an attempt which begins now may take."""
        policy = self._policy
        if self.round_trip is None or not self._is_eager(now) or self.is_reserved:
            return policy.attempt_time
        least = max(policy.known_attempt_time, policy.round_trips * self.round_trip)
        return min(least, policy.attempt_time)

    # Helpers

    def _is_eager(self, now: float) -> bool:
        return now - self._eager_since < self._policy.eager_time

    def _begin_anew(self, now: float) -> None:
        self._eager_since = now
        self._delay = None
        self._refused_since = None
        self._late_refusals = 0

    def _next_delay(self, now: float, random: float) -> float:
        policy = self._policy
        is_eager = self._is_eager(now)
        if self._delay is None:
            self._delay = policy.initial_delay
        elif is_eager:
            self._delay = min(self._delay * EAGER_GROWTH, policy.eager_delay)
        else:
            self._delay = min(self._delay * 2, policy.max_delay)
        if is_eager:
            return self._delay * (1 - policy.jitter * random)
        return self._delay * (1 + policy.jitter * (2 * random - 1))

    def _refusal_delay(self, refused_for: float, *, is_alone: bool) -> float:
        policy = self._policy
        if is_alone and refused_for < policy.lone_time:
            return policy.lone_delay
        if refused_for >= policy.eager_time:
            self._late_refusals = min(self._late_refusals + 1, _MAX_DOUBLINGS)
        return min(policy.refusal_delay * 2.0**self._late_refusals, policy.max_refusal_delay)

    def _renew_later(self, now: float, random: float) -> None:
        """Try to renew again; should the reservation end before that, it is tried then."""
        policy = self._policy
        delay = min(RENEWAL_DELAY * 2**self._renewal_failures, policy.max_delay)
        self._renewal_failures = min(self._renewal_failures + 1, _MAX_DOUBLINGS)
        self._due = now + delay * (1 - policy.jitter * random)

    def _check_attempt(self) -> None:
        if not self.is_attempting:
            raise LocalProtocolError("no attempt is under way")

    def _end_attempt(self) -> None:
        self._check_attempt()
        self.is_attempting = False


_MAX_DOUBLINGS = 32
"""Doublings counted; every delay is at its bound long before."""


def renewal_after(ttl: float) -> float:
    """Return the seconds after which a reservation of `ttl` seconds is renewed."""
    wanted = max(MIN_RENEWAL, min(RENEWAL_SHARE * ttl, ttl - RENEWAL_SLACK))
    return min(wanted, RENEWAL_SHARE * ttl)
