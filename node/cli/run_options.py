"""The options of `isthmus run`, laid over the environment and the configuration file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from .options import (
    BACKENDS,
    Session,
    config_option,
    configuration_file,
    data_dir_option,
    default_data_dir,
    ephemeral_option,
    identity_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..configfile import FileLayer, Key, Layer, OptionLayer, Schema
    from ..settings import Settings
    from .options import Function

KEYS = {
    "listen": "node.listen",
    "data_dir": "node.data_dir",
    "identity": "node.identity",
    "ephemeral": "node.ephemeral",
    "backend": "node.backend",
    "echo": "services.echo",
    "perf": "services.perf",
    "lan": "lan.enabled",
    "relay": "relay.preset",
    "relay_via": "relays.via",
    "discover_relays": "relays.discover",
    "bootstrap": "dht.bootstrap",
    "provide": "dht.provide",
    "control": "control.socket",
    "tls_cert": "websocket.cert_file",
    "tls_key": "websocket.key_file",
    "debug": "log.level",
}
"""The setting that each option is."""

PRESETS = ("off", "default", "public", "generous")
"""What `--relay` takes: the presets of `RelayServerConfig`, which is loaded later."""

DEFAULT = "default"

OFF = "off"
"""What `--control` says for no socket."""

COMMAND_LINE = "command line"

_GIVEN = {
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.COMMANDLINE: COMMAND_LINE,
}
"""The later, the stronger."""


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds: the settings, the layers that they come from, and the file, if there is one."""

    settings: Settings
    layers: tuple[Layer, ...]
    file: FileLayer | None


_OPTIONS = (
    config_option,
    click.option(
        "--listen",
        metavar="MULTIADDR",
        multiple=True,
        help="Listen here; may be repeated. Default: every IPv4 and IPv6 address of this machine,"
        " on one port that is chosen once and kept beside the key.",
    ),
    click.option(
        "--tls-cert",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The certificate for /tls/ws, in PEM; read again when it has changed. With --tls-key.",
    ),
    click.option(
        "--tls-key",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The certificate's key, in PEM and without a password.",
    ),
    click.option(
        "--echo/--no-echo",
        default=None,
        help="Serve /echo/1.0.0. Default: only if every address listened on is a loopback one.",
    ),
    click.option(
        "--perf/--no-perf",
        default=None,
        help="Serve /perf/1.0.0, by which any peer may make this node send and receive at full"
        " speed. Default: as for --echo.",
    ),
    click.option(
        "--lan/--no-lan",
        default=None,
        help="Find the peers of this network by mDNS, connect to them, and be found by them."
        " Default: unless every address listened on is a loopback one.",
    ),
    click.option(
        "--relay",
        metavar="PRESET",
        is_flag=False,
        flag_value="default",
        type=click.Choice(PRESETS),
        help="Relay for other peers: for those that are kept or that relay.allow of the"
        " configuration lists (--relay), or for anyone, a little (--relay=public).",
    ),
    click.option(
        "--relay-via",
        metavar="MULTIADDR",
        multiple=True,
        help="Be reached through this relay, too, whose address ends in /p2p/ID; may be repeated,"
        " and with two of them one may be lost.",
    ),
    click.option(
        "--discover-relays/--no-discover-relays",
        default=None,
        help="Be reached through relays that are met by chance, where those named are not enough."
        " Default: no.",
    ),
    click.option(
        "--bootstrap",
        metavar="MULTIADDR",
        multiple=True,
        help="Use the DHT that the server at this address, which ends in /p2p/ID, belongs to; may"
        " be repeated. Default: no DHT is used.",
    ),
    click.option(
        "--provide",
        metavar="SERVICE",
        multiple=True,
        help="Have others find this node in the DHT by this name; may be repeated. With"
        " --bootstrap.",
    ),
    click.option(
        "--control",
        metavar="SOCKET|off",
        help="Where `isthmus status` and other commands reach this node. Default: control.sock in"
        " the data directory; with --ephemeral: off.",
    ),
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        help="The event loop; asyncio means uvloop where it is installed.  [default: asyncio]",
    ),
    data_dir_option,
    identity_option,
    ephemeral_option,
)


def run_options(command: Function) -> Function:
    """Add every option that says what a node is to do; the command is given `effective`."""

    @functools.wraps(command)
    def wrapped(*, config: Path | None, **options: object) -> None:
        rest = {name: value for name, value in options.items() if name not in KEYS}
        command(effective=_effective(config), debug=options["debug"], **rest)

    decorated: Function = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def origin(key: Key, layers: Sequence[Layer]) -> str:
    """Return where a setting's value comes from, in a few words."""
    from ..configfile import FileLayer, source_of

    layer = source_of(key, layers)
    if layer is None or layer.source == DEFAULT:
        return DEFAULT
    if isinstance(layer, FileLayer):
        line = layer.line(key.place)
        return layer.source if line is None else f"{layer.source}, line {line}"
    return layer.where(key.place)


def _effective(config: Path | None) -> Effective:
    from ..configfile import OptionLayer, compose
    from ..settings import settings_schema

    schema = settings_schema()
    options = {text: OptionLayer(text) for text in (DEFAULT, *_GIVEN.values())}
    for name, text in KEYS.items():
        _take(name, text, schema, options)
    place, ephemeral = schema.key("node.data_dir"), schema.key("node.ephemeral")
    named = [layer.values[place] for layer in options.values() if place in layer.values]
    data_dir = named[-1] if named else default_data_dir()
    options[DEFAULT].set(place, default_data_dir(), name="the platform's place")
    keeps_nothing = options[COMMAND_LINE].values.get(ephemeral, False)
    file = configuration_file(config, None if keeps_nothing else data_dir)
    default, *given = options.values()
    layers = (default, *([file] if file else []), *given)
    return Effective(compose(schema, *layers), layers, file)


def _take(
    name: str, text: str, schema: Schema[Settings], layers: Mapping[str, OptionLayer]
) -> None:
    """Put the value of an option into the layer of the source that it comes from."""
    key = schema.key(text)
    context = click.get_current_context()
    value = context.params.get(name)
    source = context.get_parameter_source(name)
    if name == "debug":
        session = context.find_object(Session)
        if value or (session is not None and session.debug):
            layers[COMMAND_LINE].set(key, "debug", name="--debug")
        return
    if source not in _GIVEN:
        return
    if name == "control":
        if value == OFF:
            key, value = schema.key("control.enabled"), False
        else:
            value = Path(str(value))
    if name in ("listen", "relay_via", "bootstrap"):
        from ..daemon import EXAMPLE_LISTEN, EXAMPLE_RELAY
        from ..sentences import EXAMPLE_ADDRESS
        from .addresses import parse_address

        assert isinstance(value, tuple)
        examples = {"listen": EXAMPLE_LISTEN, "relay_via": EXAMPLE_RELAY}
        example = examples.get(name, EXAMPLE_ADDRESS)
        value = tuple(parse_address(each, example=example) for each in value)
    (option,) = (each for each in context.command.params if each.name == name)
    given = option.opts[0]
    if source is ParameterSource.ENVIRONMENT:
        given = str(option.envvar)
    elif value is False and option.secondary_opts:
        given = option.secondary_opts[0]
    layers[_GIVEN[source]].set(key, value, name=given)
