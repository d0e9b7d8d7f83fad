//! What the controller can ask for: each command dials, or uses the connection there is, and checks.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, TryStreamExt, stream};
use libp2p::{Multiaddr, Stream, StreamProtocol, identify};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::node::{Node, peer_of};
use crate::protocols::{ECHO, PERF, RESET, SINK, SLOW};
use crate::streams::Connection;
use crate::transfer::{
    BLOCK, Random, Tally, chunks, count_to_end, hex, round, seconds_since, write_zeros,
};
use crate::{bench, reach};

const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
/// Streams of one `streams` command that negotiate at a time: more would only wait for each other.
const OPENING_AT_ONCE: usize = 100;
const STREAM_PAYLOAD: usize = 1024;
const MIB: u64 = 1 << 20;

pub type Answer = Result<Value, Failure>;

/// Runs a command by its name.
pub async fn run(node: &Node, name: &str, options: &Options) -> Answer {
    match name {
        // The second is a dial that has to fail: no peer of that name lives at the address.
        "connect" | "wrong_peer" => connect(node, options).await,
        "disconnect" => disconnect(node, options).await,
        "identify" => identify(node, options).await,
        "ping" => ping(node, options).await,
        "echo" => echo(node, options).await,
        "half_close" => upload(node, SINK, options).await,
        "slow" => upload(node, SLOW, options).await,
        "reset_remote" => reset_remote(node, options).await,
        "reset_local" => reset_local(node, options).await,
        "streams" => streams(node, options).await,
        "perf" => perf(node, options).await,
        "bench_throughput" => bench::throughput(node, options).await,
        "bench_echo" => bench::echo_latency(node, options).await,
        "bench_streams" => bench::stream_rate(node, options).await,
        "bench_dials" => bench::dial_rate(node, options).await,
        "bench_beside" => bench::beside(node, options).await,
        "reserve" => reach::reserve(node, options).await,
        "reservations" => reach::reservations(node).await,
        "connections" => reach::connections(node, options).await,
        "can_punch" => reach::can_punch(node).await,
        "upgraded" => reach::upgraded(node, options).await,
        "autonat" => reach::autonat(node, options).await,
        "census" => reach::census(),
        _ => Err(Failure::new("UnknownCommand", format!("no command {name}"))),
    }
}

/// The arguments of one command.
pub struct Options(pub Value);

impl Options {
    pub fn address(&self) -> Result<Multiaddr, Failure> {
        let text = self.0["address"].as_str().unwrap_or_default();
        let parsed = text.parse::<Multiaddr>();
        parsed.map_err(|error| Failure::new("InvalidMultiaddr", format!("{text:?}: {error}")))
    }

    /// A list of addresses, if there is one.
    pub fn addresses(&self, name: &str) -> Result<Option<Vec<Multiaddr>>, Failure> {
        let Some(all) = self.0[name].as_array() else {
            return Ok(None);
        };
        let parsed = all.iter().map(|each| {
            let text = each.as_str().unwrap_or_default();
            let wrong = |error| Failure::new("InvalidMultiaddr", format!("{text:?}: {error}"));
            text.parse::<Multiaddr>().map_err(wrong)
        });
        parsed.collect::<Result<_, _>>().map(Some)
    }

    pub fn integer(&self, name: &str, default: u64) -> u64 {
        let value = &self.0[name];
        let whole = value.as_u64();
        whole.unwrap_or_else(|| value.as_f64().map_or(default, |number| number as u64))
    }

    /// A number of seconds.
    pub fn duration(&self, name: &str, default: f64) -> Result<Duration, Failure> {
        let seconds = self.0[name].as_f64().unwrap_or(default);
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::new("InvalidArgument", format!("{name}: {error}")))
    }

    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0[name].as_str().unwrap_or(default)
    }
}

async fn connect(node: &Node, options: &Options) -> Answer {
    let start = Instant::now();
    let connection = node.connect(&options.address()?).await?;
    let elapsed = round(seconds_since(start) * 1000.0);
    Ok(json!({ "peer_id": connection.peer.to_string(), "ms": elapsed }))
}

async fn disconnect(node: &Node, options: &Options) -> Answer {
    let connections = match peer_of(&options.address()?) {
        Some(peer) => node.connections(peer).await?,
        None => Vec::new(),
    };
    for connection in &connections {
        node.close(connection.id).await?;
    }
    Ok(json!({ "closed": connections.len() }))
}

/// rust-libp2p asks by itself, on every new connection; this waits for what it got.
async fn identify(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    let info: identify::Info = node
        .about(connection.id, |entry| entry.identified.clone())
        .await?;
    Ok(json!({
        "agent": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": texts(&info.protocols),
        "listen_addresses": texts(&info.listen_addrs),
        "observed_address": info.observed_addr.to_string(),
        "peer_id": info.public_key.to_peer_id().to_string(),
    }))
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// rust-libp2p pings a new connection at once, then every 15 s, and cannot be asked to: its own ping
/// has to succeed first, then `count` are made here, on a stream of their own.
async fn ping(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    node.about(connection.id, |entry| entry.pinged.clone())
        .await?;
    let mut stream = connection.open(PING).await?;
    let mut random = Random(1);
    let mut rtts = Vec::new();
    for _ in 0..options.integer("count", 1) {
        let payload = random.bytes(32);
        let mut back = [0; 32];
        let start = Instant::now();
        stream.write_all(&payload).await?;
        stream.flush().await?;
        stream.read_exact(&mut back).await?;
        rtts.push(round(seconds_since(start) * 1000.0));
        if payload != back {
            return Err(Failure::new("Mismatch", "the pong has other bytes"));
        }
    }
    stream.close().await?;
    Ok(json!({ "rtt_ms": rtts }))
}

async fn echo(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    echo_on(
        &connection,
        options.integer("bytes", MIB),
        options.integer("seed", 1),
    )
    .await
}

async fn echo_on(connection: &Connection, bytes: u64, seed: u64) -> Answer {
    let (mut reader, mut writer) = connection.open(ECHO).await?.split();
    let sending = async {
        let mut sent = Tally::default();
        for chunk in chunks(bytes, seed) {
            sent.add(&chunk);
            writer.write_all(&chunk).await?;
        }
        writer.close().await?;
        Ok::<_, Failure>(sent)
    };
    let receiving = async {
        let mut block = vec![0; BLOCK];
        let mut received = Tally::default();
        loop {
            match reader.read(&mut block).await? {
                0 => return Ok::<_, Failure>(received),
                size => received.add(&block[..size]),
            }
        }
    };
    let (sent, received) = futures::try_join!(sending, receiving)?;
    let (count, digest) = (received.count, received.digest());
    if count != bytes || digest != sent.digest() {
        let what = format!(
            "sent {bytes} bytes, received {count}, digest {}",
            hex(&digest)
        );
        return Err(Failure::new("Mismatch", what));
    }
    Ok(json!({ "bytes": count, "sha256": hex(&digest) }))
}

async fn upload(node: &Node, protocol: StreamProtocol, options: &Options) -> Answer {
    let bytes = options.integer("bytes", MIB);
    let connection = node.connect(&options.address()?).await?;
    let mut stream = connection.open(protocol).await?;
    let mut sent = Tally::default();
    for chunk in chunks(bytes, options.integer("seed", 1)) {
        sent.add(&chunk);
        stream.write_all(&chunk).await?;
    }
    stream.close().await?;
    let expected = sent.answer();
    let mut reply = Vec::new();
    stream.take(41).read_to_end(&mut reply).await?;
    if reply != expected {
        let what = format!("sent {bytes} bytes, the peer answered {}", hex(&reply));
        return Err(Failure::new("Mismatch", what));
    }
    Ok(json!({ "bytes": bytes, "sha256": hex(&expected[8..]), "matches": true }))
}

/// A reader sees the same end after a reset as after a FIN; only a FIN leaves the stream writable.
async fn reset_remote(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    let mut stream = connection.open(RESET).await?;
    stream.write_all(&[0]).await?;
    stream.flush().await?;
    count_to_end(&mut stream).await?;
    if stream.write_all(&[0]).await.is_ok() {
        return Err(Failure::new(
            "NoReset",
            "the stream ended, but was not reset",
        ));
    }
    // The end of the connection looks the same.
    node.about(connection.id, |_| Some(Ok(()))).await?;
    Ok(json!({ "reset": true, "kind": "WriteZero" }))
}

async fn reset_local(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    let mut stream = connection.open(ECHO).await?;
    stream.write_all(&[0; STREAM_PAYLOAD]).await?;
    stream.flush().await?;
    drop(stream);
    let after = echo_on(&connection, STREAM_PAYLOAD as u64, 2).await?;
    Ok(json!({ "ok": true, "bytes": after["bytes"] }))
}

async fn streams(node: &Node, options: &Options) -> Answer {
    let connection = &node.connect(&options.address()?).await?;
    let count = options.integer("count", 500);
    let mut opened: Vec<Stream> = stream::iter(0..count)
        .map(|_| connection.open(ECHO))
        .buffered(OPENING_AT_ONCE)
        .try_collect()
        .await?;
    // Nothing was sent, so a stream that is alive has nothing to read.
    let silent = |stream: &mut Stream| stream.read(&mut [0]).now_or_never().is_none();
    let alive = opened
        .iter_mut()
        .map(silent)
        .filter(|silent| *silent)
        .count();
    let uses = opened
        .into_iter()
        .enumerate()
        .map(|(index, mut stream)| async move {
            let payload = [index as u8; STREAM_PAYLOAD];
            let mut back = [0; STREAM_PAYLOAD];
            stream.write_all(&payload).await?;
            stream.flush().await?;
            stream.read_exact(&mut back).await?;
            stream.close().await?;
            Ok::<_, Failure>(back == payload)
        });
    let echoes = futures::future::try_join_all(uses).await?;
    let echoed = echoes.into_iter().filter(|same| *same).count();
    Ok(json!({ "opened": alive, "echoed": echoed }))
}

async fn perf(node: &Node, options: &Options) -> Answer {
    let (up, down) = (
        options.integer("upload", MIB),
        options.integer("download", MIB),
    );
    let connection = node.connect(&options.address()?).await?;
    let mut stream = connection.open(PERF).await?;
    let start = Instant::now();
    perf_upload(&mut stream, down, up).await?;
    // The server answers once it has all of the upload, so the first byte back ends it.
    let first = stream.read(&mut [0]).await? as u64;
    let uploaded = seconds_since(start);
    let received = first + count_to_end(&mut stream).await?;
    let seconds = seconds_since(start);
    check_received(received, down)?;
    let downloaded = seconds - uploaded;
    let down_rate = if down == 0 {
        0.0
    } else {
        down as f64 / 1e6 / downloaded
    };
    Ok(json!({
        "upload_mb_s": round(up as f64 / 1e6 / uploaded),
        "download_mb_s": round(down_rate),
        "upload_seconds": round(uploaded),
        "download_seconds": round(downloaded),
        "seconds": round(seconds),
    }))
}

/// The client's half of perf: the length wanted, the upload, the half-close.
pub async fn perf_upload(stream: &mut Stream, wanted: u64, bytes: u64) -> Result<(), Failure> {
    stream.write_all(&wanted.to_be_bytes()).await?;
    write_zeros(stream, bytes).await?;
    Ok(stream.close().await?)
}

pub fn check_received(received: u64, wanted: u64) -> Result<(), Failure> {
    if received == wanted {
        return Ok(());
    }
    let what = format!("asked for {wanted} bytes, received {received}");
    Err(Failure::new("Mismatch", what))
}
