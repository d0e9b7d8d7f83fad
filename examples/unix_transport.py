"""Unix domain sockets as a transport: peers on one machine meet at /unix/<path>."""

from contextlib import suppress

import anyio
from anyio.abc import SocketAttribute
from isthmus.transports.core.errors import AddressError, DialError, map_errors
from isthmus.transports.core.interfaces import RawListener
from isthmus.transports.sockets import SocketStream


class UnixTransport:
    protocols = ("unix",)

    def attach(self, host): ...

    def can_dial(self, addr):
        return addr.names in (("unix",), ("unix", "p2p"))

    async def dial_raw(self, addr):
        with map_errors({OSError: DialError}):
            stream = await anyio.connect_unix(addr.value_of("unix"))
        return SocketStream(stream.extra(SocketAttribute.raw_socket))

    async def listen_raw(self, addr):
        if not self.can_dial(addr):
            raise AddressError(f"{addr} is not the path of a Unix socket")
        with suppress(DialError):
            await (await self.dial_raw(addr)).aclose()
            raise OSError(f"cannot listen on {addr}: somebody does already")
        try:  # anyio removes a socket that a process which was killed has left there
            listener = await anyio.create_unix_listener(addr.value_of("unix"))
        except OSError as error:
            raise OSError(f"cannot listen on {addr}: {error}") from error
        return UnixListener(listener, addr.without_peer())


class UnixListener(RawListener):
    addresses = ()

    def __init__(self, listener, addr):
        self._listener, self.addresses = listener, (addr,)

    async def serve(self, handler):
        async with anyio.create_task_group() as tasks:
            with suppress(anyio.ClosedResourceError):
                while True:
                    try:
                        sock = (await self._listener.accept()).extra(SocketAttribute.raw_socket)
                    except anyio.BrokenResourceError:
                        await anyio.sleep(0.1)  # out of file descriptors: the node lives on
                    else:
                        tasks.start_soon(handler, SocketStream(sock), self.addresses[0])

    async def aclose(self):
        await self._listener.aclose()
        await anyio.Path(self.addresses[0].value_of("unix")).unlink(missing_ok=True)
