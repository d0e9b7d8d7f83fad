"""The configuration file: every setting of a node in it and back, and files that are refused."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus import LimitsConfig, Multiaddr, Node, NodeConfig, PeerId
from isthmus.node.configfile import MAX_PROBLEMS, Schema, compose, is_section, read_toml
from isthmus.node.configtext import explanation, write_toml
from isthmus.node.configvalues import MAX_INTEGER
from isthmus.node.daemon import DaemonOptions
from isthmus.node.privacy import PrivacyConfig
from isthmus.node.settings import (
    MAX_FILE_BYTES,
    Settings,
    load_settings,
    read_settings,
    settings_schema,
)
from isthmus.relay.kad.config import KadConfig
from isthmus.transports.core.errors import ConfigError, ConfigRefused
from isthmus.transports.lan.config import LanConfig
from isthmus.transports.upgrade_config import UpgradeConfig
from isthmus.transports.websocket.config import (
    SMALLEST_HEAD,
    SMALLEST_MESSAGE,
    WebSocketConfig,
)
from isthmus.transports.yamux.config import YamuxConfig

BASE = Path("/etc/isthmus")
PEER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")

COUNT = st.integers(1, MAX_INTEGER)
SECONDS = st.floats(min_value=0, exclude_min=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
PATH = TEXT.filter(lambda text: "\0" not in text).map(lambda text: BASE / text)
LISTEN = st.builds(
    lambda port, end: Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}{end}"),
    st.integers(0, 65_535),
    st.sampled_from(["", "/ws", "/tls/ws"]),
)
YAMUX = st.builds(
    YamuxConfig,
    max_inbound_streams=COUNT,
    accept_backlog=COUNT,
    max_unacknowledged=COUNT,
    receive_budget=COUNT,
    keepalive_interval=SECONDS,
    keepalive_timeout=SECONDS,
)
CERTIFICATES = st.just((None, None)) | st.tuples(PATH, PATH)
WEBSOCKET = CERTIFICATES.flatmap(
    lambda files: st.builds(
        WebSocketConfig,
        cert_file=st.just(files[0]),
        key_file=st.just(files[1]),
        ca_file=st.none() | PATH,
        insecure=st.booleans(),
        origins=st.none() | st.lists(TEXT, max_size=3).map(tuple),
        handshake_timeout=SECONDS,
        max_pending_handshakes=COUNT,
        max_message_size=st.integers(SMALLEST_MESSAGE, MAX_INTEGER),
        max_head_size=st.integers(SMALLEST_HEAD, MAX_INTEGER),
    )
)
BOOTSTRAP = LISTEN.map(lambda address: address.with_peer(PEER))
DHT = st.builds(
    KadConfig,
    bootstrap=st.lists(BOOTSTRAP, min_size=1, max_size=3).map(tuple),
    protocol=TEXT.map(lambda text: f"/{text}"),
    provide=st.lists(TEXT.filter(lambda text: text and text.isprintable()), max_size=3).map(tuple),
    parallel=st.integers(1, 10),
    request_timeout=SECONDS,
    lookup_timeout=SECONDS,
    provide_interval=st.floats(min_value=60),
)
PARTS = {
    "limits": st.builds(
        LimitsConfig,
        connections=COUNT,
        outbound_share=st.floats(0, 1, exclude_max=True),
        connections_per_peer=COUNT,
        waiting_dials=COUNT,
    ),
    "lan": st.builds(
        LanConfig,
        announce=st.sampled_from(["private", "trusted", "never"]),
        trusted=st.lists(TEXT, max_size=3).map(tuple),
        peers_per_minute=COUNT,
        max_peers=COUNT,
    ),
    "dht": DHT,
    "websocket": WEBSOCKET,
    "upgrade": st.builds(
        UpgradeConfig,
        dial_timeout=SECONDS,
        inbound_timeout=SECONDS,
        max_pending_inbound=COUNT,
        yamux=YAMUX,
        receive_budget=COUNT,
    ),
    "privacy": st.builds(PrivacyConfig, addresses=st.sampled_from(["all", "public", "relay-only"])),
}
CONFIG = st.builds(
    NodeConfig,
    dial_found=st.booleans(),
    dial_timeout=SECONDS,
    negotiation_timeout=SECONDS,
    stop_timeout=SECONDS,
    serve_perf=st.none() | st.booleans(),
    raise_handler_errors=st.booleans(),
    **PARTS,
)
SETTINGS = st.builds(
    Settings,
    options=st.builds(
        DaemonOptions,
        listen=st.lists(LISTEN, max_size=3).map(tuple),
        data_dir=st.none() | PATH,
        identity=st.none() | PATH,
        ephemeral=st.booleans(),
        transports=st.none() | st.lists(TEXT, max_size=3).map(tuple),
        echo=st.none() | st.booleans(),
        lan=st.none() | st.booleans(),
        config=CONFIG,
    ),
    backend=st.sampled_from(["asyncio", "trio"]),
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
)


def parsed(text, schema=None):
    schema = schema or settings_schema()
    return compose(schema, read_toml(schema, text, name="isthmus.toml", base=BASE))


def written(path, text, mode=0o600):
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


@given(SETTINGS)
def test_any_settings_survive_being_shown_and_read(settings):
    assert parsed(write_toml(settings_schema(), settings, base=BASE)) == settings


@given(CONFIG)
def test_any_node_config_survives_by_itself(config):
    schema = Schema(NodeConfig, home="node")
    assert parsed(write_toml(schema, config, base=BASE), schema) == config


def test_nothing_said_is_what_run_does_by_default():
    settings = parsed("")
    assert settings == Settings()
    assert settings.options.config == NodeConfig(dial_found=True)


def test_sections_are_called_as_errors_call_them():
    assert {".".join(place) for place in settings_schema().sections} == {
        *("node", "services", "dht", "lan", "limits", "reconnect", "control"),
        *("websocket", "upgrade", "yamux", "privacy", "autonat", "dcutr", "relay", "relays", "log"),
    }


def test_every_setting_of_every_dataclass_is_in_the_file_and_explained():
    def names(value, path=()):
        for each in fields(value):
            inner = getattr(value, each.name)
            if is_dataclass(inner) and is_section(type(inner)):
                yield from names(inner, (*path, each.name))
            else:
                yield (*path, each.name)

    keys = settings_schema().keys.values()
    assert {key.attributes for key in keys} == set(names(Settings()))
    assert [key.text for key in keys if not explanation(key)] == []


def test_problems_of_every_section_are_told():
    with pytest.raises(ConfigRefused) as caught:
        parsed(
            """[node]
dial_timeout = 0
[limits]
connections = "many"
conections = 5
[lan]
announce = "allways"
[websocket]
cert_file = "node.pem"
max_head_size = 1
[yamux]
accept_backlog = 0
[privacy]
addresses = "none"
"""
        )
    assert [str(each) for each in caught.value.problems] == [
        "dial_timeout must be above 0 seconds (isthmus.toml, line 2)",
        'limits.connections: a whole number is needed, not "many" (isthmus.toml, line 4)',
        "limits.conections: there is no such setting; did you mean limits.connections?"
        " (isthmus.toml, line 5)",
        'lan.announce: private, trusted or never is needed, not "allways" (isthmus.toml, line 7)',
        "websocket.cert_file and websocket.key_file go together: name both (isthmus.toml, line 9)",
        "websocket.max_head_size must be at least 1024 (isthmus.toml, line 10)",
        "yamux.accept_backlog must be at least 1 (isthmus.toml, line 12)",
        'privacy.addresses: all, public or relay-only is needed, not "none"'
        " (isthmus.toml, line 14)",
    ]
    first = caught.value.problems[1]
    assert (first.key, first.line) == ("limits.connections", 4)


def test_a_file_is_read_for_a_program(tmp_path):
    path = written(
        tmp_path / "any.toml",
        '[limits]\nconnections = 3\n[websocket]\nca_file = "ca.pem"\n[upgrade]\ndial_timeout = 3\n',
    )
    config = load_settings(path).options.config
    assert config == NodeConfig(
        dial_found=True,
        limits=LimitsConfig(connections=3),
        websocket=WebSocketConfig(ca_file=tmp_path / "ca.pem"),
        upgrade=UpgradeConfig(dial_timeout=3.0),
    )
    assert Node(config=config).config is config


def test_the_default_transports_get_their_settings():
    websocket, upgrade = WebSocketConfig(insecure=True), UpgradeConfig(inbound_timeout=3)
    config = NodeConfig(websocket=websocket, upgrade=upgrade)
    for names in (None, ["tcp", "ws"]):
        transports = Node(transports=names, config=config)._swarm._transports
        assert transports["ws"].raw.config is websocket
        assert transports["ws"].config is transports["tcp"].config
        assert transports["tcp"].config.inbound_timeout == 3


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_who_can_change_a_file_must_not_choose_keys(tmp_path, mode):
    path = written(tmp_path / "isthmus.toml", 'node.identity = "a.key"', mode)
    with pytest.raises(ConfigError, match=f"node.identity in it is a path .*chmod go-w {path}"):
        read_settings(path)
    written(path, 'node.identity = "a.key"', 0o644)
    assert read_settings(path).problems == []
    # What a file without paths can do is bounded: the worst is a node that does not work.
    written(path, "limits.connections = 3", mode)
    assert read_settings(path).problems == []


def test_a_list_of_paths_or_a_certificate_counts(tmp_path):
    path = written(tmp_path / "isthmus.toml", 'websocket.ca_file = "ca.pem"', 0o666)
    with pytest.raises(ConfigError, match=r"websocket\.ca_file in it is a path"):
        read_settings(path)


def test_a_file_of_the_data_directory_cannot_name_another_one(tmp_path):
    path = written(tmp_path / "isthmus.toml", 'node.data_dir = "/elsewhere"')
    with pytest.raises(ConfigRefused, match="cannot name another one; name the file with --config"):
        compose(settings_schema(), read_settings(path, is_own=True))
    assert load_settings(path).options.data_dir == Path("/elsewhere")
    for same in (".", str(tmp_path), f"../{tmp_path.name}"):
        written(path, f'node.data_dir = "{same}"')
        assert read_settings(path, is_own=True).problems == []


def test_a_large_file_is_refused(tmp_path):
    path = written(tmp_path / "isthmus.toml", "#" * MAX_FILE_BYTES)
    assert load_settings(path) == Settings()
    written(path, "#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=f"has at most {MAX_FILE_BYTES} bytes"):
        load_settings(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be a regular file"):
        load_settings(tmp_path)
    with pytest.raises(ConfigError, match="missing: No such file or directory"):
        load_settings(tmp_path / "missing")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="must be a regular file"):
        load_settings(pipe)


def test_what_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "isthmus.toml"
    path.write_bytes(b"a = 1\n# \xff\n")
    path.chmod(0o600)
    with pytest.raises(ConfigRefused, match=f"^this is not UTF-8 \\({path}, line 2\\)$"):
        load_settings(path)


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_random_bytes_are_read_or_refused(data):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "isthmus.toml"
        path.write_bytes(data)
        try:
            outcome = load_settings(path)
        except ConfigRefused as error:
            outcome = error
        if isinstance(outcome, ConfigRefused):
            assert len(outcome.problems) <= MAX_PROBLEMS + 1
        else:
            assert outcome == Settings()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_opens_and_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match=r"^/proc/self/mem: Input/output error$"):
        read_settings(Path("/proc/self/mem"))
