"""Shaped links: delay, rate, loss and queues within bounds, and the congestion control chosen.

The bounds are wide where a busy machine could push the number, and tight where it could not.
"""

from __future__ import annotations

import socket

import natlab
import pytest


def _used(client, server):
    """The congestion control of both ends of a new connection from client to server."""
    with server.socket(socket.SOCK_STREAM) as listener:
        listener.listen()
        with client.socket(socket.SOCK_STREAM) as dialer:
            dialer.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                return [
                    end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                    .rstrip(b"\0")
                    .decode()
                    for end in (dialer, accepted)
                ]


def test_the_reference_link_has_its_round_trip_and_rate(lab):
    near, far = natlab.wan_link(lab)
    idle = natlab.echo_rtt(near, far, samples=50)
    assert 0.020 <= idle.p50 < 0.030
    assert idle.p50 <= idle.p99
    bytes_per_second = natlab.plain_tcp_copy(near, far, 2, "cubic", warm_up=1)
    assert 0.80 * 2.5e6 < bytes_per_second < 1.01 * 2.5e6
    up, _ = near.link.statistics()
    assert up.sent > 0
    assert up.lost == 0


def test_up_and_down_are_shaped_apart(lab):
    host, server = lab.add_host("host"), lab.add_host("server")
    host.link.shape(rate=("2mbit", "10mbit"))
    up = natlab.plain_tcp_copy(host, server, 1.5, warm_up=0.5)
    down = natlab.plain_tcp_copy(server, host, 1.5, warm_up=0.5)
    assert 0.7 * 2e6 / 8 < up < 1.1 * 2e6 / 8
    assert 0.7 * 10e6 / 8 < down < 1.1 * 10e6 / 8


def test_a_full_queue_drops_its_tail(lab):
    near, far = natlab.wan_link(lab, rate="1mbit", rtt=2, queue=50)
    with near.socket() as source, far.socket() as sink:
        for _ in range(40):
            source.sendto(bytes(1000), sink.getsockname())
        lab.until(lambda: near.link.statistics()[0].overflow, what="an overflow")
        up = lab.until(lambda: _settled(near.link, 40), what="40 frames")
    assert 5 <= up.sent <= 15  # 50 ms at 1 Mbit/s are six such frames


def _settled(link, frames):
    up, _ = link.statistics()
    return up if up.sent + up.overflow >= frames else None


def test_a_tenth_of_the_frames_is_lost(lab):
    host, server = lab.add_host("host"), lab.add_host("server")
    host.link.shape(loss=(10, 0))
    with host.socket() as source, server.socket() as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        for number in range(2000):
            source.sendto(b"?", sink.getsockname())
            if number % 50 == 0:
                lab.wait(0.002)
        up = lab.until(lambda: _all_of(host.link, 2000), what="every frame")
    assert up.lost == pytest.approx(200, abs=60)  # more than four standard deviations


def _all_of(link, frames):
    up, _ = link.statistics()
    return up if up.sent + up.lost >= frames else None


def test_shaping_can_be_changed_and_lifted_in_mid_run(lab):
    host, server = lab.add_host("host"), lab.add_host("server")
    host.link.shape(delay=25)
    assert natlab.echo_rtt(host, server, samples=5).p50 >= 0.050
    host.link.shape(delay=(5, 10), jitter=2)
    assert 0.010 <= natlab.echo_rtt(host, server, samples=20).p50 < 0.045
    host.link.unshape()
    assert not host.link.is_shaped
    assert natlab.echo_rtt(host, server, samples=5).p50 < 0.010
    with pytest.raises(natlab.LabError, match="not shaped"):
        host.link.statistics()


def test_the_kernel_limits_a_rate_alone(lab):
    host, server = lab.add_host("host"), lab.add_host("server")
    host.link.tbf("10mbit")
    limited = natlab.plain_tcp_copy(host, server, 1, warm_up=0.5)
    assert 0.6 * 10e6 / 8 < limited < 1.1 * 10e6 / 8
    host.link.tbf()
    assert natlab.plain_tcp_copy(host, server, 0.5, warm_up=0.2) > 10 * limited


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_a_host_uses_the_congestion_control_chosen_in_both_roles(lab, algorithm):
    host, other = lab.add_host("host"), lab.add_host("other")
    lab.add_network("isp2", "11.0.2.0/24")
    far = lab.add_host("far", "isp2")
    default = _used(host, other)[1]
    host.congestion(algorithm)
    assert _used(host, other) == [algorithm, default]
    assert _used(other, host) == [default, algorithm]
    assert _used(host, far) == [algorithm, default]
    host.move("isp2")
    assert _used(host, other) == [algorithm, default]
    host.congestion(None)
    assert _used(host, other) == [default, default]


def test_a_foreign_program_uses_the_congestion_control_chosen(lab):
    host, other = lab.add_host("host"), lab.add_host("other")
    host.congestion("cubic")
    with other.socket(socket.SOCK_STREAM) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        script = f"exec 3<>/dev/tcp/{other.ip}/{port}; ss -tinH dport = {port}"
        shown = host.run(["bash", "-c", script]).stdout
    assert "cubic" in shown


def test_an_unknown_congestion_control_is_refused(lab):
    with pytest.raises(natlab.LabError):
        lab.add_host("host").congestion("vegas2")
