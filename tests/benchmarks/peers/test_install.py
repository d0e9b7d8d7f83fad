"""The cache of foreign peers: built once, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from isthmus.benchmarks.peers import install
from isthmus.benchmarks.peers.errors import PeerUnavailable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(install.CACHE_VARIABLE, str(folder))
    return folder


def manifest(tmp_path: Path, text: str = "one") -> list[Path]:
    (tmp_path / "lock").write_text(text)
    return [tmp_path / "lock"]


def test_a_peer_is_built_once_per_manifest(tmp_path: Path, cache: Path) -> None:
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "done").touch()

    first = install._installed("toy", manifest(tmp_path), "here", build=build)
    again = install._installed("toy", manifest(tmp_path), "here", build=build)
    other = install._installed("toy", manifest(tmp_path, "two"), "here", build=build)
    elsewhere = install._installed("toy", manifest(tmp_path, "two"), "there", build=build)
    assert first == again
    assert len({first, other, elsewhere}) == len(builds) == 3
    assert all((folder / "done").exists() for folder in (first, other, elsewhere))
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == sorted(
        path.name for path in (first, other, elsewhere)
    )


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").touch()
        raise PeerUnavailable("toy", "the registry is away")

    with pytest.raises(PeerUnavailable, match="the registry is away"):
        install._installed("toy", manifest(tmp_path), "here", build=build)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_whoever_renames_first_wins(tmp_path: Path) -> None:
    place = tmp_path / "place"

    def build(folder: Path) -> None:
        (folder / "mine").touch()
        place.mkdir()
        (place / "theirs").touch()

    assert install._published(place, build) == place
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert [path.name for path in place.iterdir()] == ["theirs"]


def test_a_machine_without_npm_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="npm is not installed"):
        install.argv_of("js")
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize(("peer", "tool"), [("go", "go"), ("rust", "cargo")])
def test_a_machine_without_a_toolchain_says_which(
    peer: str, tool: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PeerUnavailable, match=f"{tool} is not installed") as caught:
        install.argv_of(peer)
    assert caught.value.name == peer


def test_a_toolchain_that_does_not_work_shows_what_it_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "go"
    broken.write_text("#!/bin/sh\necho no good >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="no good"):
        install.argv_of("go")


def test_installing_ahead_of_time_lists_what_there_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.main(["isthmus-trio"]) == 0
    monkeypatch.setenv("PATH", "")
    assert install.main(["isthmus-trio", "go"]) == 1
    assert "go: go is not installed" in capsys.readouterr().out


def test_an_installer_that_fails_shows_its_output(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no route to the registry >&2\nexit 7\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="failed with 7: no route to the registry"):
        install.argv_of("js")


def test_a_cache_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(install.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(PeerUnavailable, match="cannot be used"):
        install._installed("toy", manifest(tmp_path), "here", build=lambda _: None)


def test_the_lock_files_name_no_registry() -> None:
    for lock in ("js/package-lock.json", "py/requirements.lock"):
        text = (install._HERE / lock).read_text()
        assert '"resolved"' not in text
        assert "--index-url" not in text
        assert "file:" not in text
