"""When a peer that was lost is dialled again."""

from __future__ import annotations

from dataclasses import dataclass

from ..transports.core.errors import ConfigError

EAGER_TIME = 60.0
"""Seconds after a loss for which attempts follow each other closely: most losses are a peer that
starts again, or a network that comes back."""

EAGER_DELAY = 0.7
"""Seconds between two attempts in that time at most, so that a peer is found within a second."""

EAGER_BACKOFF = 2.5
"""From one delay to the next in that time: 0.1, 0.25, 0.625, 0.7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectPolicy:
    """How a link is dialled again after a loss; delays are seconds from one start to the next."""

    max_attempts: int | None = 8
    """Attempts after which it has failed; None: without end."""

    initial_delay: float = 0.1
    """Before the first attempt; it doubles, and more, up to 0.7 in the first minute."""

    max_delay: float = 30.0
    """The longest, which is reached by doubling after the first minute."""

    backoff_multiplier: float = 2.0
    """From one delay to the next after the first minute."""

    jitter: float = 0.2
    """The share by which a delay is shortened or lengthened at random, so that the peers of a relay
    that was lost do not all come at once; never lengthened in the first minute."""

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 0:
            raise ConfigError("reconnect.max_attempts must be at least 0")
        if not 0 < self.initial_delay <= self.max_delay:
            raise ConfigError("reconnect.initial_delay must be above 0 and at most max_delay")
        if self.backoff_multiplier < 1:
            raise ConfigError("reconnect.backoff_multiplier must be at least 1")
        if not 0 <= self.jitter < 1:
            raise ConfigError("reconnect.jitter must be at least 0 and below 1")


class Backoff:
    """The attempts since one loss; `random` is drawn uniformly from 0 to 1 for each delay."""

    def __init__(self, policy: ReconnectPolicy, now: float) -> None:
        self._policy = policy
        self.reset(now)

    @property
    def is_over(self) -> bool:
        """Say whether no attempt is left."""
        limit = self._policy.max_attempts
        return limit is not None and self.attempts >= limit

    def reset(self, now: float) -> None:
        """Begin anew, as after a loss: there is news."""
        self.attempts = 0
        self._since = now
        self._delay: float | None = None

    def delay(self, now: float, random: float) -> float:
        """Return the seconds from now to the next attempt, and count it."""
        policy = self._policy
        self.attempts += 1
        is_eager = now - self._since < EAGER_TIME
        if self._delay is None:
            self._delay = policy.initial_delay
        elif is_eager:
            self._delay = min(self._delay * EAGER_BACKOFF, EAGER_DELAY, policy.max_delay)
        else:
            self._delay = min(self._delay * policy.backoff_multiplier, policy.max_delay)
        if is_eager:
            return self._delay * (1 - policy.jitter * random)
        return self._delay * (1 + policy.jitter * (2 * random - 1))
