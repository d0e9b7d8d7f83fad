// What the benchmarks ask for. Times are taken in this process, on the monotonic clock.
import { multiaddr } from '@multiformats/multiaddr'
import { connectionTo, open, perfUpload } from './commands.mjs'
import { ECHO, ONE, PERF, SLOW } from './protocols.mjs'
import { PeerError, Reader, countToEnd, round, secondsSince, summary, write } from './streams.mjs'

const WARM_UP_ECHOES = 50
/** How long the saturating stream runs before echoes count. */
const RAMP_MS = 200

/** One or several streams of perf; `up` ends when the answer to the last byte has come. */
async function throughput (node, { address, direction = 'up', bytes = 256e6, streams = 1 }) {
  const connection = await connectionTo(node, address)
  const each = Math.floor(bytes / streams)
  const opened = await Promise.all(Array.from({ length: streams }, () => open(connection, PERF)))
  const start = performance.now()
  await Promise.all(opened.map(async (stream) => {
    const counting = countToEnd(stream)
    const [up, down] = direction === 'up' ? [each, 0] : [0, each]
    await perfUpload(stream, down, up)
    const received = await counting
    if (received !== down) {
      throw new PeerError('Mismatch', `asked for ${down} bytes, received ${received}`)
    }
  }))
  const seconds = secondsSince(start)
  return { mb_s: round(each * streams / 1e6 / seconds), seconds: round(seconds) }
}

/** Sends a payload on an open echo stream and waits for all of it, in microseconds. */
class Echo {
  #stream
  #payload
  #missing = 0
  #done = { resolve () {}, reject () {} }

  constructor (stream, size) {
    this.#stream = stream
    this.#payload = Buffer.alloc(size, 7)
    stream.addEventListener('message', ({ data }) => {
      this.#missing -= data.byteLength
      if (this.#missing <= 0) {
        this.#done.resolve()
      }
    })
    stream.addEventListener('close', (event) => {
      this.#done.reject(event.error ?? new PeerError('StreamClosedError', 'the echo stream closed'))
    })
  }

  async once () {
    const start = performance.now()
    this.#missing = this.#payload.byteLength
    const answered = new Promise((resolve, reject) => { this.#done = { resolve, reject } })
    this.#stream.send(this.#payload)
    await answered
    return (performance.now() - start) * 1000
  }

  async many (count) {
    const samples = []
    while (samples.length < count) {
      samples.push(await this.once())
    }
    return samples
  }

  /** Until a time of the monotonic clock, `interval` milliseconds apart or at once. */
  async until (deadline, interval) {
    const samples = []
    let due = performance.now()
    while (performance.now() < deadline) {
      samples.push(await this.once())
      due += interval
      const wait = due - performance.now()
      if (wait > 0) {
        await new Promise((resolve) => setTimeout(resolve, wait))
      }
    }
    return samples
  }
}

async function echoLatency (node, { address, count = 2000, size = 32 }) {
  const stream = await open(await connectionTo(node, address), ECHO)
  const echo = new Echo(stream, size)
  await echo.many(Math.min(WARM_UP_ECHOES, count))
  const figures = summary(await echo.many(count))
  await stream.close()
  return { p50_us: figures.p50, p99_us: figures.p99, samples_us: figures, count }
}

async function streamRate (node, { address, count = 500 }) {
  const connection = await connectionTo(node, address)
  const byte = Buffer.alloc(1, 1)
  const start = performance.now()
  for (let done = 0; done < count; done++) {
    const stream = await open(connection, ONE)
    const reader = new Reader(stream)
    await write(stream, byte)
    await reader.exactly(1)
    await stream.close()
  }
  const seconds = secondsSince(start)
  return { per_second: round(count / seconds), seconds: round(seconds) }
}

/** Fresh connections, one after the other; identify starts on each by itself, as on any js node. */
async function dialRate (node, { address, count = 50 }) {
  const target = multiaddr(address)
  const start = performance.now()
  for (let done = 0; done < count; done++) {
    const connection = await node.dial(target, { force: true })
    await connection.close()
  }
  const seconds = secondsSince(start)
  return { per_second: round(count / seconds), seconds: round(seconds) }
}

/** Upload as fast as the stream takes it until the deadline; the rate counts to the peer's answer. */
async function saturate (connection, protocol, deadline) {
  const stream = await open(connection, protocol)
  const counting = countToEnd(stream)
  const block = new Uint8Array(64 << 10)
  const start = performance.now()
  let sent = 0
  // The first eight zero bytes are perf's "send nothing back".
  while (performance.now() < deadline) {
    await write(stream, block)
    sent += block.byteLength
    if (sent % (1 << 20) === 0) {
      // write() need not wait on a fast path: let the echo have its turn of the loop.
      await new Promise(setImmediate)
    }
  }
  await stream.close()
  await counting
  return sent / 1e6 / secondsSince(start)
}

async function beside (node, { address, seconds = 3, interval = 0, bulk = 'perf', size = 32 }) {
  const connection = await connectionTo(node, address)
  const protocol = bulk === 'slow' ? SLOW : PERF
  const stream = await open(connection, ECHO)
  const echo = new Echo(stream, size)
  await echo.many(WARM_UP_ECHOES)
  const milliseconds = seconds * 1000
  const idle = summary(await echo.until(performance.now() + milliseconds, interval * 1000))
  const alone = await saturate(connection, protocol, performance.now() + milliseconds)
  const deadline = performance.now() + RAMP_MS + milliseconds
  const bulkRate = saturate(connection, protocol, deadline)
  bulkRate.catch(() => {})
  await new Promise((resolve) => setTimeout(resolve, RAMP_MS))
  const samples = await echo.until(deadline, interval * 1000)
  const busy = summary(samples)
  const rate = await bulkRate
  await stream.close()
  return {
    idle_p50_us: idle.p50,
    idle_p99_us: idle.p99,
    p50_us: busy.p50,
    p99_us: busy.p99,
    bulk_mb_s: round(rate),
    bulk_alone_mb_s: round(alone),
    samples: samples.length
  }
}

export const benches = {
  bench_throughput: throughput,
  bench_echo: echoLatency,
  bench_streams: streamRate,
  bench_dials: dialRate,
  bench_beside: beside
}
