from isthmus import Node, run


async def echo(stream):
    await stream.send(await stream.receive())


async def main():
    async with Node(listen="/ip4/127.0.0.1/tcp/0") as alice, Node() as bob:
        alice.handle("/echo/1.0.0", echo)
        print(await bob.request(alice.addresses, "/echo/1.0.0", b"hello"))


run(main)
