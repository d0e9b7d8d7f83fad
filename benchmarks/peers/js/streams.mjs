// Reading, writing and measuring on js-libp2p streams, with backpressure in both directions.
// Events are used where the stream's own async iterator buffers without bound.

/** A read queue above this pauses the stream, so that the peer sees its window close. */
const READ_QUEUE_BYTES = 1 << 20

/** A stream that ended in another way than this side expected. */
export class PeerError extends Error {
  constructor (kind, message) {
    super(message)
    this.name = kind
  }
}

/** Call back once: with undefined at the peer's end of stream, with an error if the stream failed. */
export function onceEnded (stream, callback) {
  let called = false
  const once = (error) => {
    if (!called) {
      called = true
      callback(error)
    }
  }
  stream.addEventListener('end', () => {
    // 'end' also fires for a reset or an abort, just before the 'close' event that says which.
    queueMicrotask(() => once(failureOf(stream)))
  })
  stream.addEventListener('close', (event) => {
    if (event.error != null) {
      once(event.error)
    }
  })
  if (stream.readableEnded) {
    queueMicrotask(() => once(failureOf(stream)))
  }
}

function failureOf (stream) {
  if (stream.status === 'reset') {
    return new PeerError('StreamResetError', 'the peer reset the stream')
  }
  if (stream.status === 'aborted') {
    return new PeerError('StreamAbortedError', 'the stream was aborted')
  }
}

/** Send one chunk; wait until the stream takes more if it is full. */
export async function write (stream, data) {
  if (!stream.send(data)) {
    await drained(stream)
  }
}

/** Wait for the next 'drain'; reject if the stream ends first. */
export function drained (stream) {
  return new Promise((resolve, reject) => {
    const done = (settle) => (event) => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
      settle(event.error ?? new PeerError('StreamClosedError', 'closed while writing'))
    }
    const onDrain = done(() => resolve())
    const onClose = done(reject)
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
  })
}

/** Pulls bytes from a stream; pauses it while more than READ_QUEUE_BYTES wait. */
export class Reader {
  #stream
  #chunks = []
  #queued = 0
  #ended = false
  #error
  #wake = () => {}

  constructor (stream) {
    this.#stream = stream
    stream.addEventListener('message', ({ data }) => {
      this.#chunks.push(data.subarray())
      this.#queued += data.byteLength
      if (this.#queued > READ_QUEUE_BYTES && stream.readStatus === 'readable') {
        stream.pause()
      }
      this.#wake()
    })
    onceEnded(stream, (error) => {
      this.#ended = true
      this.#error = error
      this.#wake()
    })
  }

  /** The next bytes, as they came; null at the end of the stream. */
  async next () {
    while (this.#chunks.length === 0) {
      if (this.#error != null) {
        throw this.#error
      }
      if (this.#ended) {
        return null
      }
      await new Promise((resolve) => { this.#wake = resolve })
    }
    const chunk = this.#chunks.shift()
    this.#queued -= chunk.byteLength
    if (this.#queued === 0 && this.#stream.readStatus === 'paused') {
      this.#stream.resume()
    }
    return chunk
  }

  /** Exactly `count` bytes; rejects if the stream ends before. */
  async exactly (count) {
    const parts = []
    let have = 0
    while (have < count) {
      const chunk = await this.next()
      if (chunk == null) {
        throw new PeerError('UnexpectedEOFError', `the stream ended after ${have} of ${count} bytes`)
      }
      parts.push(chunk)
      have += chunk.byteLength
    }
    const joined = Buffer.concat(parts)
    if (have > count) {
      this.#chunks.unshift(joined.subarray(count))
      this.#queued += have - count
    }
    return joined.subarray(0, count)
  }

  /** Everything up to the end of the stream; rejects above `limit` bytes. */
  async all (limit) {
    const parts = []
    let have = 0
    for (let chunk = await this.next(); chunk != null; chunk = await this.next()) {
      have += chunk.byteLength
      if (have > limit) {
        throw new PeerError('TooLong', `more than ${limit} bytes`)
      }
      parts.push(chunk)
    }
    return Buffer.concat(parts)
  }
}

/** Count the bytes up to the end of the stream without keeping them; `first` sees the first ones. */
export function countToEnd (stream, first = () => {}) {
  return new Promise((resolve, reject) => {
    let count = 0
    stream.addEventListener('message', ({ data }) => {
      if (count === 0) {
        first()
      }
      count += data.byteLength
    })
    onceEnded(stream, (error) => { error == null ? resolve(count) : reject(error) })
  })
}

/** Send `count` zero bytes in blocks of 64 KiB, as js-libp2p's own perf service does. */
export async function writeZeros (stream, count) {
  const block = new Uint8Array(64 << 10)
  for (let left = count; left > 0; left -= block.byteLength) {
    await write(stream, left < block.byteLength ? block.subarray(0, left) : block)
  }
}

/** p50 and the like of an unsorted list of microseconds. */
export function summary (samples) {
  const sorted = Float64Array.from(samples).sort()
  const at = (share) => round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))])
  return { min: at(0), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) }
}

export function round (value) {
  return Math.round(value * 1000) / 1000
}

/** Seconds since `start`, which is a value of performance.now(). */
export function secondsSince (start) {
  return (performance.now() - start) / 1000
}
