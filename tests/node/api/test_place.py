"""Where the control socket is: its mode, its place, its name, and who is at the other end."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from isthmus.node.api import SOCKET_FILE
from isthmus.node.api.place import DESCRIPTORS, connected, listening, peer_uid, short_name
from isthmus.node.keystore import DataDir
from isthmus.transports.core.errors import ControlError, NotRunning, StoreError


@pytest.fixture
def path(tmp_path):
    return tmp_path / SOCKET_FILE


@pytest.fixture
def long(tmp_path):
    """A place whose path no sun_path has room for."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    return folder / SOCKET_FILE


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def works(path, listener):
    with connected(path) as client, listener.accept()[0] as server:
        server.settimeout(5)
        client.send(b"x")
        return server.recv(2) == b"x"


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o177, 0o777])
def test_only_its_user_may_use_it_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with DataDir(tmp_path / "data") as data:
            path = data.path / SOCKET_FILE
            with listening(path) as listener:
                assert (mode(data.path), mode(path)) == (0o700, 0o600)
                assert works(path, listener)
    finally:
        os.umask(before)


def test_it_is_gone_afterwards(path):
    with listening(path):
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert [each.name for each in path.parent.iterdir()] == [SOCKET_FILE]
    assert list(path.parent.iterdir()) == []


def test_one_that_was_left_behind_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    with pytest.raises(NotRunning):
        connected(path)
    with listening(path) as listener:
        assert works(path, listener)


def test_one_that_is_in_use_is_left_alone(path):
    with listening(path) as listener:
        with pytest.raises(StoreError, match="another program listens there"), listening(path):
            pass
        listener.accept()[0].close()
        assert works(path, listener)
        # Nobody accepts: the kernel's queue is full at some time.
        waiting = []
        with pytest.raises(ControlError, match="too many") as caught:
            waiting.extend(connected(path) for _ in range(1000))
        assert caught.value.status == 503
        with pytest.raises(StoreError, match="another program listens there"), listening(path):
            pass
        for each in waiting:
            each.close()


def test_one_that_has_taken_its_place_is_left_alone(path):
    with listening(path):
        other = socket.socket(socket.AF_UNIX)
        path.unlink()
        other.bind(str(path))
    with other:
        assert path.exists()


def test_what_is_no_socket_is_left_alone(path):
    path.write_text("mine")
    with pytest.raises(StoreError, match="something else than a socket"), listening(path):
        pass
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(path.parent / "elsewhere.sock")
    with pytest.raises(StoreError, match="something else than a socket"), listening(path):
        pass


def test_a_place_that_is_none(path):
    for missing in (path / "x.sock", path.parent / "missing" / "x.sock"):
        path.touch()
        why = "name another place with --control"
        with pytest.raises(StoreError, match=why), listening(missing):
            pass
        with pytest.raises(NotRunning, match="isthmus run --control"):
            connected(missing)


def test_a_path_that_is_too_long(long):
    with listening(long) as listener:
        assert mode(long) == 0o600
        assert works(long, listener)
    assert not long.exists()
    with pytest.raises(NotRunning):
        connected(long)


@pytest.mark.parametrize("descriptors", [DESCRIPTORS, "/nowhere"])
def test_a_short_name_on_each_system(long, descriptors):
    if descriptors != "/nowhere" and not Path(descriptors).is_dir():
        pytest.skip("this system does not show what a process has open")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as bound:
        with short_name(long, descriptors=descriptors) as name:
            assert len(name) < 60
            bound.bind(name)
        assert Path.cwd() == here
        assert stat.S_ISSOCK(long.stat().st_mode)


def test_the_other_end_is_this_user(path):
    with listening(path) as listener, connected(path) as client, listener.accept()[0] as server:
        assert peer_uid(server) == peer_uid(client) == os.geteuid()
