//! What the benchmarks ask for. Times are taken in this process, on the monotonic clock.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};
use serde_json::json;
use tokio::time::sleep;

use crate::commands::{Answer, Options, check_received, perf_upload};
use crate::failure::Failure;
use crate::node::Node;
use crate::protocols::{ECHO, ONE, PERF, SLOW};
use crate::streams::Connection;
use crate::task::Task;
use crate::transfer::{BLOCK, Summary, count_to_end, round, seconds_since};

const WARM_UP_ECHOES: u64 = 50;
/// How long the saturating stream runs before echoes count.
const RAMP: Duration = Duration::from_millis(200);

/// One or several streams of perf; `up` ends when the answer to the last byte has come.
pub async fn throughput(node: &Node, options: &Options) -> Answer {
    let connection = node.connect(&options.address()?).await?;
    let streams = options.integer("streams", 1);
    let each = options.integer("bytes", 256_000_000) / streams.max(1);
    let (up, down) = match options.text("direction", "up") {
        "up" => (each, 0),
        _ => (0, each),
    };
    let opened = try_join_all((0..streams).map(|_| connection.open(PERF))).await?;
    let start = Instant::now();
    let run = |mut stream: Stream| async move {
        perf_upload(&mut stream, down, up).await?;
        check_received(count_to_end(&mut stream).await?, down)
    };
    let tasks: Vec<_> = opened
        .into_iter()
        .map(|stream| Task::new(run(stream)))
        .collect();
    try_join_all(tasks.into_iter().map(Task::done)).await?;
    let seconds = seconds_since(start);
    let rate = (each * streams) as f64 / 1e6 / seconds;
    Ok(json!({ "mb_s": round(rate), "seconds": round(seconds) }))
}

/// Sends a payload on an open echo stream and waits for all of it, in microseconds.
struct Echo {
    stream: Stream,
    payload: Vec<u8>,
    back: Vec<u8>,
}

impl Echo {
    async fn open(connection: &Connection, options: &Options) -> Result<Self, Failure> {
        let size = options.integer("size", 32) as usize;
        Ok(Self {
            stream: connection.open(ECHO).await?,
            payload: vec![7; size],
            back: vec![0; size],
        })
    }

    async fn once(&mut self) -> Result<f64, Failure> {
        let start = Instant::now();
        self.stream.write_all(&self.payload).await?;
        self.stream.flush().await?;
        self.stream.read_exact(&mut self.back).await?;
        Ok(seconds_since(start) * 1e6)
    }

    async fn many(&mut self, count: u64) -> Result<Vec<f64>, Failure> {
        let mut samples = Vec::new();
        for _ in 0..count {
            samples.push(self.once().await?);
        }
        Ok(samples)
    }

    /// Until a time of the monotonic clock, with an interval between the starts or at once.
    async fn until(&mut self, deadline: Instant, interval: Duration) -> Result<Vec<f64>, Failure> {
        let mut samples = Vec::new();
        let mut due = Instant::now();
        while Instant::now() < deadline {
            samples.push(self.once().await?);
            due += interval;
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
        Ok(samples)
    }
}

pub async fn echo_latency(node: &Node, options: &Options) -> Answer {
    let count = options.integer("count", 2000);
    let connection = node.connect(&options.address()?).await?;
    let mut echo = Echo::open(&connection, options).await?;
    echo.many(WARM_UP_ECHOES.min(count)).await?;
    let figures = Summary::new(echo.many(count).await?);
    echo.stream.close().await?;
    Ok(json!({
        "p50_us": figures.at(0.5),
        "p99_us": figures.at(0.99),
        "samples_us": figures.json(),
        "count": count,
    }))
}

pub async fn stream_rate(node: &Node, options: &Options) -> Answer {
    let count = options.integer("count", 500);
    let connection = node.connect(&options.address()?).await?;
    let start = Instant::now();
    for _ in 0..count {
        let mut stream = connection.open(ONE).await?;
        stream.write_all(&[1]).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        stream.close().await?;
    }
    let seconds = seconds_since(start);
    Ok(json!({ "per_second": round(count as f64 / seconds), "seconds": round(seconds) }))
}

/// Fresh connections, one after the other; identify and ping start on each by themselves, as on any
/// rust node.
pub async fn dial_rate(node: &Node, options: &Options) -> Answer {
    let count = options.integer("count", 50);
    let address = options.address()?;
    let start = Instant::now();
    for _ in 0..count {
        let connection = node.dial(&address).await?;
        node.close(connection.id).await?;
    }
    let seconds = seconds_since(start);
    Ok(json!({ "per_second": round(count as f64 / seconds), "seconds": round(seconds) }))
}

/// Uploads as fast as the stream takes it until the deadline; the rate counts to the peer's answer.
async fn saturate(
    connection: Connection,
    protocol: StreamProtocol,
    deadline: Instant,
) -> Result<f64, Failure> {
    let mut stream = connection.open(protocol).await?;
    // The first eight zero bytes are perf's "send nothing back".
    let block = [0; BLOCK];
    let start = Instant::now();
    let mut sent = 0;
    while Instant::now() < deadline {
        stream.write_all(&block).await?;
        sent += BLOCK;
    }
    stream.close().await?;
    count_to_end(&mut stream).await?;
    Ok(sent as f64 / 1e6 / seconds_since(start))
}

pub async fn beside(node: &Node, options: &Options) -> Answer {
    let seconds = options.duration("seconds", 3.0)?;
    let interval = options.duration("interval", 0.0)?;
    let protocol = match options.text("bulk", "perf") {
        "slow" => SLOW,
        _ => PERF,
    };
    let connection = node.connect(&options.address()?).await?;
    let bulk = |deadline| Task::new(saturate(connection.clone(), protocol.clone(), deadline));
    let mut echo = Echo::open(&connection, options).await?;
    echo.many(WARM_UP_ECHOES).await?;
    let idle = Summary::new(echo.until(Instant::now() + seconds, interval).await?);
    let alone = bulk(Instant::now() + seconds).done().await?;
    let deadline = Instant::now() + RAMP + seconds;
    let uploading = bulk(deadline);
    sleep(RAMP).await;
    let samples = echo.until(deadline, interval).await?;
    let count = samples.len();
    let busy = Summary::new(samples);
    let rate = uploading.done().await?;
    echo.stream.close().await?;
    Ok(json!({
        "idle_p50_us": idle.at(0.5),
        "idle_p99_us": idle.at(0.99),
        "p50_us": busy.at(0.5),
        "p99_us": busy.at(0.99),
        "bulk_mb_s": round(rate),
        "bulk_alone_mb_s": round(alone),
        "samples": count,
    }))
}
