"""Certificates for every test of TLS, made once."""

from __future__ import annotations

import pytest

from .authority import Authority, Files


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody but these tests trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def files(authority: Authority) -> Files:
    """A good certificate of it."""
    return authority.issue()
