"""Settings are checked where they are made."""

from __future__ import annotations

from dataclasses import fields
from math import nan

import pytest
from isthmus.node.config import LimitsConfig, NodeConfig
from isthmus.transports.core.errors import ConfigError


def test_a_quarter_of_the_connections_is_kept_for_dialling():
    assert LimitsConfig().inbound_connections == 384
    assert LimitsConfig(connections=1).inbound_connections == 1
    assert NodeConfig().limits == LimitsConfig()


@pytest.mark.parametrize("name", [item.name for item in fields(LimitsConfig)])
def test_a_limit_of_nothing_is_named(name):
    with pytest.raises(ConfigError, match=f"limits.{name} must be at least"):
        LimitsConfig(**{name: -1})
    with pytest.raises(ConfigError, match=f"limits.{name} must be at least"):
        LimitsConfig(**{name: nan})


def test_what_cannot_be_used_is_named():
    with pytest.raises(ConfigError, match="outbound_share"):
        LimitsConfig(outbound_share=1.0)
    with pytest.raises(ConfigError, match="connections must be at least 1"):
        LimitsConfig(connections=0)
    for name in ("dial_timeout", "negotiation_timeout", "stop_timeout"):
        with pytest.raises(ConfigError, match=name):
            NodeConfig(**{name: 0})
