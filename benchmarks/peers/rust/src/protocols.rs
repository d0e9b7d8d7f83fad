//! The protocols that this peer serves, besides identify and ping, which are rust-libp2p's own.

use std::io;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};
use tokio::time::sleep;

use crate::transfer::{BLOCK, Tally, count_to_end, write_zeros};

pub const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
pub const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
pub const SINK: StreamProtocol = StreamProtocol::new("/isthmus-test/sink/1.0.0");
pub const SLOW: StreamProtocol = StreamProtocol::new("/isthmus-test/slow/1.0.0");
pub const RESET: StreamProtocol = StreamProtocol::new("/isthmus-test/reset/1.0.0");
pub const ONE: StreamProtocol = StreamProtocol::new("/isthmus-test/one/1.0.0");

pub const SERVED: &[StreamProtocol] = &[ECHO, PERF, SINK, SLOW, RESET, ONE];

/// How long the slow reader reads nothing, then how long it rests after each block.
const SLOW_START: Duration = Duration::from_millis(300);
const SLOW_TICK: Duration = Duration::from_millis(5);

/// Serves one inbound stream in a task of its own; a handler that fails drops it: a reset.
pub fn serve(protocol: &StreamProtocol, stream: Stream) {
    match protocol.as_ref() {
        "/echo/1.0.0" => tokio::spawn(echo(stream)),
        "/perf/1.0.0" => tokio::spawn(perf(stream)),
        "/isthmus-test/sink/1.0.0" => tokio::spawn(digest(stream, None)),
        "/isthmus-test/slow/1.0.0" => tokio::spawn(slow(stream)),
        "/isthmus-test/reset/1.0.0" => tokio::spawn(reset(stream)),
        "/isthmus-test/one/1.0.0" => tokio::spawn(one(stream)),
        _ => return,
    };
}

async fn echo(mut stream: Stream) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block).await? {
            0 => return stream.close().await,
            size => stream.write_all(&block[..size]).await?,
        }
        stream.flush().await?;
    }
}

/// https://github.com/libp2p/specs/blob/master/perf/perf.md
async fn perf(mut stream: Stream) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted).await?;
    count_to_end(&mut stream).await?;
    write_zeros(&mut stream, u64::from_be_bytes(wanted)).await?;
    stream.close().await
}

async fn slow(stream: Stream) -> io::Result<()> {
    sleep(SLOW_START).await;
    digest(stream, Some(SLOW_TICK)).await
}

/// Reads to the end, with a rest after each block if one is given; answers count and SHA-256.
async fn digest(mut stream: Stream, rest: Option<Duration>) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut seen = Tally::default();
    loop {
        match stream.read(&mut block).await? {
            0 => break,
            size => seen.add(&block[..size]),
        }
        if let Some(rest) = rest {
            sleep(rest).await;
        }
    }
    stream.write_all(&seen.answer()).await?;
    stream.close().await
}

async fn reset(mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await
}

async fn one(mut stream: Stream) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    stream.write_all(&byte).await?;
    stream.close().await
}
