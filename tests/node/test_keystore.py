"""The identity key is made once, kept private, and refused with a sentence that helps."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from isthmus.node.keystore import MAX_KEY_BYTES, DataDir, _create, load_or_create
from isthmus.transports.core.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "data" / "node" / "identity.key"
    key = load_or_create(path)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert load_or_create(path).to_protobuf() == key.to_protobuf() == path.read_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "identity.key"
    load_or_create(path)
    for bad in (0o640, 0o604, 0o620):
        path.chmod(bad)
        with pytest.raises(StoreError, match=f"chmod 600 {path}"):
            load_or_create(path)
    path.chmod(0o600)
    load_or_create(path)


@pytest.mark.parametrize("data", [b"", b"\x08\x01", b"not a key", bytes(MAX_KEY_BYTES + 1)])
def test_what_is_no_key_is_refused_and_kept(tmp_path, data):
    path = tmp_path / "identity.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=f"{path}: not a private key"):
        load_or_create(path)
    assert path.read_bytes() == data


def test_a_directory_or_pipe_in_its_place_is_refused(tmp_path):
    (tmp_path / "dir").mkdir()
    with pytest.raises(StoreError, match="regular file"):
        load_or_create(tmp_path / "dir")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(StoreError, match="regular file"):
        load_or_create(tmp_path / "pipe")


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        load_or_create(tmp_path / "file" / "identity.key")


def test_the_first_of_two_writers_wins_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / "identity.key"
    assert _create(path, b"first")
    assert not _create(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path;"
        "from isthmus.node.keystore import load_or_create;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10));"
        "load_or_create(Path(sys.argv[1]))"
    )
    path = tmp_path / "identity.key"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert f"StoreError: {path}: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_has_one_user(tmp_path):
    directory = DataDir(tmp_path / "data")
    with directory as held:
        assert held.key_path == tmp_path / "data" / "identity.key"
        assert mode(tmp_path / "data") == 0o700
        with pytest.raises(StoreError, match=f"already running as PID {os.getpid()}; use --data"):
            DataDir(tmp_path / "data").__enter__()
    with DataDir(tmp_path / "data"):
        pass


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"), DataDir(tmp_path / "file"):
        pass
