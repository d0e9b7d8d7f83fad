"""Virtual links inside one process, with delay, jitter, rate, loss, reordering and faults.

`stream.MemoryTransport` carries plain byte streams, `plain.PlainMemoryTransport` whole connections
with message pipes. Both meet in a `network.MemoryNetwork`. All waiting goes by the loop's clock, so
that under a virtual one (trio's MockClock) every time is exact.
"""
