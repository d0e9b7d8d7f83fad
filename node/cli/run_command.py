"""`isthmus run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import output_options, require_backend
from .output import log_from, style
from .run_options import run_options

if TYPE_CHECKING:
    from ...transports.core.multiaddr import Multiaddr
    from ..daemon import Started
    from ..events import NodeEvent
    from .output import Output
    from .run_options import Effective


@click.command()
@run_options
@output_options
def run(*, effective: Effective, output: Output) -> None:
    """Run a node until Ctrl-C.

    Prints its addresses, the line to paste on another machine, and what happens. With --json
    every event is one object; the first is "listening". Options come before the configuration
    file, which 'isthmus config show' explains.

    \b
    Examples:
      isthmus run
      isthmus run --listen /ip4/127.0.0.1/tcp/4001 --ephemeral --json
      isthmus run --listen /ip4/0.0.0.0/tcp/443/tls/ws --tls-cert node.pem --tls-key node.key
      isthmus run --relay
      isthmus run --relay-via /dns4/relay.example.org/tcp/4001/p2p/12D3KooW...
      isthmus run --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW... --provide chat
      isthmus run --config isthmus.toml
    """
    from ..daemon import serve
    from ..run import run as run_loop
    from .interrupts import end_at_once

    settings = effective.settings
    require_backend(settings.backend)
    log_from(settings.log_level)
    run_loop(serve, settings.options, _Report(output), backend=settings.backend)
    end_at_once()
    output.line("stopped")


class _Report:
    """What `serve` has to say, in the form asked for."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def started(self, started: Started) -> None:
        if self._output.as_json:
            return
        for line in _introduce(started):
            self._output.line(line)

    def event(self, event: NodeEvent) -> None:
        self._output.result(event.to_json())
        if self._output.as_json:
            return
        from .lines import event_line

        line = event_line(event)
        if line is not None:
            self._output.line(line)

    def notice(self, text: str) -> None:
        self._output.notice(text)


def _introduce(started: Started) -> list[str]:
    from ..protocols.identify import ID_PROTOCOL, PUSH_PROTOCOL

    key = "on no disk: it is gone when this node stops"
    if started.key_path is not None:
        key = f"{started.key_path.absolute()}{' (new)' if started.is_new_key else ''}"
    served = [each for each in started.protocols if each not in (ID_PROTOCOL, PUSH_PROTOCOL)]
    lines = [_field("peer id", style(str(started.peer_id), bold=True))]
    for number, address in enumerate(started.addresses):
        lines.append(_field("" if number else "addresses", str(address)))
    if not started.addresses:
        lines.append(_field("addresses", "none: no network interface of this machine is up"))
    lines += [_field("key", key), _field("serves", ", ".join(served)), ""]
    best = _best(started.addresses)
    if best is not None:
        where = "in another terminal" if _is_loopback(best) else "on the other machine"
        lines += [f"Paste this {where}:", f"  {style(f'isthmus ping {best}', fg='green')}", ""]
    lines.append("Ctrl-C stops this node.")
    return lines


def _best(addresses: tuple[Multiaddr, ...]) -> Multiaddr | None:
    """Return the address to name to others: IPv4 before IPv6, loopback only if all are."""
    order = sorted(addresses, key=lambda each: (_is_loopback(each), each.names[0] != "ip4"))
    return order[0] if order else None


def _is_loopback(address: Multiaddr) -> bool:
    return address.ip is not None and address.ip.is_loopback


def _field(name: str, value: str) -> str:
    return f"{name:<10} {value}"
