// The protocols that this peer serves, besides identify and ping, which are js-libp2p's own.
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { PeerError, Reader, drained, onceEnded, write, writeZeros } from './streams.mjs'

export const ECHO = '/echo/1.0.0'
export const PERF = '/perf/1.0.0'
export const SINK = '/isthmus-test/sink/1.0.0'
export const SLOW = '/isthmus-test/slow/1.0.0'
export const RESET = '/isthmus-test/reset/1.0.0'
export const ONE = '/isthmus-test/one/1.0.0'

/** js-libp2p allows 32 inbound and 64 outbound streams of one protocol; the tests open 500. */
const STREAMS_PER_PROTOCOL = 4096

/** The slow reader: how long it reads nothing, then how much it takes per tick. */
const SLOW_START_MS = 300
const SLOW_BYTES = 64 << 10
const SLOW_TICK_MS = 5

export const streamLimits = {
  maxInboundStreams: STREAMS_PER_PROTOCOL,
  maxOutboundStreams: STREAMS_PER_PROTOCOL,
  // js-libp2p opens and takes nothing on a connection with limits that does not say so.
  runOnLimitedConnection: true
}

/** Register every handler on the node. */
export async function serve (node) {
  const handlers = { [ECHO]: echo, [PERF]: perf, [SINK]: sink, [SLOW]: slow, [RESET]: reset, [ONE]: one }
  for (const [protocol, handler] of Object.entries(handlers)) {
    await node.handle(protocol, (stream) => guarded(stream, handler), streamLimits)
  }
}

async function guarded (stream, handler) {
  try {
    await handler(stream)
  } catch (error) {
    stream.abort(error)
  }
}

// Listens to events instead of awaiting a reader: each hop through a promise costs latency.
function echo (stream) {
  stream.addEventListener('message', ({ data }) => {
    if (stream.writeStatus === 'writable' && !stream.send(data) && stream.readStatus === 'readable') {
      stream.pause()
      drained(stream).then(() => resume(stream), (error) => stream.abort(error))
    }
  })
  onceEnded(stream, (error) => {
    if (error == null) {
      stream.close().catch((failure) => stream.abort(failure))
    }
  })
}

function resume (stream) {
  if (stream.readStatus === 'paused') {
    stream.resume()
  }
}

// https://github.com/libp2p/specs/blob/master/perf/perf.md
async function perf (stream) {
  const wanted = await perfUpload(stream)
  await writeZeros(stream, wanted)
  await stream.close()
}

function perfUpload (stream) {
  return new Promise((resolve, reject) => {
    let header = Buffer.alloc(0)
    stream.addEventListener('message', ({ data }) => {
      if (header.byteLength < 8) {
        header = Buffer.concat([header, data.subarray(0, 8 - header.byteLength)])
      }
    })
    onceEnded(stream, (error) => {
      if (error != null || header.byteLength < 8) {
        reject(error ?? new PeerError('UnexpectedEOFError', 'no length came'))
      } else {
        resolve(Number(header.readBigUInt64BE(0)))
      }
    })
  })
}

async function sink (stream) {
  const reader = new Reader(stream)
  const hash = createHash('sha256')
  let count = 0
  for (let chunk = await reader.next(); chunk != null; chunk = await reader.next()) {
    hash.update(chunk)
    count += chunk.byteLength
  }
  await answer(stream, count, hash)
}

async function slow (stream) {
  stream.pause()
  const reader = new Reader(stream)
  const hash = createHash('sha256')
  let count = 0
  await delay(SLOW_START_MS)
  resume(stream)
  for (let chunk = await reader.next(); chunk != null; chunk = await reader.next()) {
    for (let at = 0; at < chunk.byteLength; at += SLOW_BYTES) {
      // Paused while it digests: resuming is what grants the peer new credit.
      if (stream.readStatus === 'readable') {
        stream.pause()
      }
      const piece = chunk.subarray(at, at + SLOW_BYTES)
      hash.update(piece)
      count += piece.byteLength
      await delay(SLOW_TICK_MS)
    }
    resume(stream)
  }
  await answer(stream, count, hash)
}

async function answer (stream, count, hash) {
  const length = Buffer.alloc(8)
  length.writeBigUInt64BE(BigInt(count))
  await write(stream, Buffer.concat([length, hash.digest()]))
  await stream.close()
}

async function reset (stream) {
  await new Reader(stream).exactly(1)
  stream.abort(new PeerError('Requested', 'this protocol resets'))
}

async function one (stream) {
  const byte = await new Reader(stream).exactly(1)
  await write(stream, byte)
  await stream.close()
}
