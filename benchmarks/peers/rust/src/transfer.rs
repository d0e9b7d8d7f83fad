//! Sending, receiving and measuring on streams.
//!
//! There is no call that resets a stream: one that is dropped before it was closed is reset (yamux
//! sends Data|RST), unless the peer had finished, then it is closed. A reader is told nothing of the
//! peer's reset: it reads an end of stream, and only a write fails.

use std::io;
use std::time::Instant;

use futures::{AsyncReadExt, AsyncWriteExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What is read and written at a time, as in the other programs; yamux cuts it to 16 KiB.
pub const BLOCK: usize = 64 << 10;
const SMALL_CHUNK: usize = 1500;
const LARGE_CHUNK: usize = 96 << 10;

/// Sends zeros.
pub async fn write_zeros(
    stream: &mut (impl AsyncWriteExt + Unpin),
    mut count: u64,
) -> io::Result<()> {
    let block = [0; BLOCK];
    while count > 0 {
        let size = count.min(BLOCK as u64);
        stream.write_all(&block[..size as usize]).await?;
        count -= size;
    }
    Ok(())
}

/// Counts the bytes up to the end of the stream.
pub async fn count_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut count = 0;
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok(count),
            size => count += size as u64,
        }
    }
}

/// A count and a SHA-256 of what went by.
#[derive(Default)]
pub struct Tally {
    pub count: u64,
    hash: Sha256,
}

impl Tally {
    pub fn add(&mut self, data: &[u8]) {
        self.count += data.len() as u64;
        self.hash.update(data);
    }

    pub fn digest(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// The answer of the sink: the count in 8 bytes, the digest in 32.
    pub fn answer(self) -> [u8; 40] {
        let mut answer = [0; 40];
        answer[..8].copy_from_slice(&self.count.to_be_bytes());
        answer[8..].copy_from_slice(&self.digest());
        answer
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SplitMix64: deterministic bytes, for which a crate would be too much.
pub struct Random(pub u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.draw().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Yields bytes in chunks of random sizes; half of them are small, which is a case of its own.
pub fn chunks(total: u64, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random(seed);
    let mut left = total as usize;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let draw = random.draw() as usize;
        let most = if draw & 1 == 0 {
            SMALL_CHUNK
        } else {
            LARGE_CHUNK
        };
        let size = left.min(1 + (draw >> 1) % most);
        left -= size;
        Some(random.bytes(size))
    })
}

/// p50 and the like of microseconds, as the other programs compute them.
pub struct Summary {
    sorted: Vec<f64>,
}

impl Summary {
    pub fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { sorted: samples }
    }

    pub fn at(&self, share: f64) -> f64 {
        let index = (self.sorted.len() as f64 * share) as usize;
        let last = self.sorted.len().saturating_sub(1);
        self.sorted
            .get(index.min(last))
            .copied()
            .map_or(f64::NAN, round)
    }

    pub fn json(&self) -> Value {
        json!({
            "min": self.at(0.0),
            "p50": self.at(0.5),
            "p90": self.at(0.9),
            "p99": self.at(0.99),
            "max": self.at(1.0),
        })
    }
}

pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}
