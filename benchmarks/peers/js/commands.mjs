// What the controller can ask for: each command dials, or uses the connection there is, and checks.
import { createCipheriv, createHash } from 'node:crypto'
import { multiaddr } from '@multiformats/multiaddr'
import { ECHO, PERF, RESET, SINK, SLOW, streamLimits } from './protocols.mjs'
import { PeerError, Reader, countToEnd, round, secondsSince, write, writeZeros } from './streams.mjs'

/** Streams of one `streams` command that negotiate at a time: more would only wait for each other. */
const OPENING_AT_ONCE = 100
const STREAM_PAYLOAD = 1024
const MAX_CHUNK = 96 << 10

export async function connectionTo (node, address) {
  // A dial makes another connection where the one there is has limits.
  const there = address.includes('/p2p-circuit') ? connectionsTo(node, address)[0] : undefined
  return there ?? node.dial(multiaddr(address))
}

/** The peer that an address ends with. */
export function peerOf (address) {
  return multiaddr(address).getComponents().findLast(({ name }) => name === 'p2p')?.value
}

/** The open connections to the peer that an address ends with, direct ones first. */
export function connectionsTo (node, address) {
  const peer = peerOf(address)
  const all = node.getConnections().filter(({ remotePeer, status }) => {
    return remotePeer.toString() === peer && status === 'open'
  })
  return all.sort((left, right) => Number(right.direct) - Number(left.direct))
}

export function open (connection, protocol) {
  return connection.newStream(protocol, streamLimits)
}

/** Deterministic bytes and chunk sizes from a seed. */
export function * chunks (total, seed = 1) {
  const key = createHash('sha256').update(String(seed)).digest()
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16))
  for (let left = total; left > 0;) {
    const draw = cipher.update(Buffer.alloc(4)).readUInt32BE(0)
    // Half of the chunks are small: frames of a few bytes are a case of their own.
    const most = (draw & 1) === 0 ? 1500 : MAX_CHUNK
    const size = Math.min(left, 1 + (draw >>> 1) % most)
    yield cipher.update(Buffer.alloc(size))
    left -= size
  }
}

async function connect (node, { address }) {
  const start = performance.now()
  const connection = await connectionTo(node, address)
  return { peer_id: connection.remotePeer.toString(), ms: round(performance.now() - start) }
}

async function disconnect (node, { address }) {
  const connections = connectionsTo(node, address)
  await Promise.all(connections.map((connection) => connection.close()))
  return { closed: connections.length }
}

async function identify (node, { address }) {
  const result = await node.services.identify.identify(await connectionTo(node, address))
  return {
    agent: result.agentVersion ?? null,
    protocol_version: result.protocolVersion ?? null,
    protocols: result.protocols,
    listen_addresses: result.listenAddrs.map(String),
    observed_address: result.observedAddr?.toString() ?? null,
    peer_id: result.peerId.toString()
  }
}

// js-libp2p's own client: a stream per ping, whole milliseconds.
async function ping (node, { address, count = 1 }) {
  const connection = await connectionTo(node, address)
  const rtts = []
  for (let done = 0; done < count; done++) {
    rtts.push(await node.services.ping.ping(connection.remotePeer))
  }
  return { rtt_ms: rtts }
}

async function echo (node, { address, bytes = 1 << 20, seed = 1 }) {
  return echoOn(await connectionTo(node, address), bytes, seed)
}

async function echoOn (connection, bytes, seed) {
  const stream = await open(connection, ECHO)
  const sent = createHash('sha256')
  const received = createHash('sha256')
  const receiving = (async () => {
    const reader = new Reader(stream)
    let count = 0
    for (let chunk = await reader.next(); chunk != null; chunk = await reader.next()) {
      received.update(chunk)
      count += chunk.byteLength
    }
    return count
  })()
  const sending = (async () => {
    for (const chunk of chunks(bytes, seed)) {
      sent.update(chunk)
      await write(stream, chunk)
    }
    await stream.close()
  })()
  const [count] = await aborting(stream, Promise.all([receiving, sending]))
  const digest = received.digest('hex')
  if (count !== bytes || digest !== sent.digest('hex')) {
    throw new PeerError('Mismatch', `sent ${bytes} bytes, received ${count}, digest ${digest}`)
  }
  return { bytes: count, sha256: digest }
}

/** Await the work; abort the stream if it fails. */
async function aborting (stream, work) {
  try {
    return await work
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

async function upload (node, protocol, { address, bytes = 1 << 20, seed = 1 }) {
  const stream = await open(await connectionTo(node, address), protocol)
  const hash = createHash('sha256')
  const work = (async () => {
    const reader = new Reader(stream)
    for (const chunk of chunks(bytes, seed)) {
      hash.update(chunk)
      await write(stream, chunk)
    }
    await stream.close()
    return reader.all(40)
  })()
  const reply = await aborting(stream, work)
  const digest = hash.digest('hex')
  const counted = reply.byteLength === 40 ? Number(reply.readBigUInt64BE(0)) : -1
  if (counted !== bytes || reply.subarray(8).toString('hex') !== digest) {
    throw new PeerError('Mismatch', `sent ${bytes} bytes (${digest}), the peer answered ${reply.toString('hex')}`)
  }
  return { bytes: counted, sha256: digest, matches: true }
}

async function resetRemote (node, { address }) {
  const stream = await open(await connectionTo(node, address), RESET)
  const reader = new Reader(stream)
  await write(stream, Buffer.alloc(1))
  try {
    await reader.all(1 << 16)
  } catch (error) {
    if (stream.status === 'reset') {
      return { reset: true, kind: error.name }
    }
    throw error
  }
  throw new PeerError('NoReset', 'the stream ended, but was not reset')
}

async function resetLocal (node, { address }) {
  const connection = await connectionTo(node, address)
  const stream = await open(connection, ECHO)
  await write(stream, Buffer.alloc(STREAM_PAYLOAD))
  stream.abort(new PeerError('Requested', 'reset by request'))
  const after = await echoOn(connection, STREAM_PAYLOAD, 2)
  return { ok: true, bytes: after.bytes }
}

async function streams (node, { address, count = 500 }) {
  const connection = await connectionTo(node, address)
  const opened = []
  while (opened.length < count) {
    const batch = Math.min(OPENING_AT_ONCE, count - opened.length)
    opened.push(...await Promise.all(Array.from({ length: batch }, () => open(connection, ECHO))))
  }
  const alive = opened.filter((stream) => stream.status === 'open').length
  const echoes = await Promise.all(opened.map(async (stream, index) => {
    const payload = Buffer.alloc(STREAM_PAYLOAD, index & 0xff)
    const reader = new Reader(stream)
    await write(stream, payload)
    const back = await reader.exactly(payload.byteLength)
    await stream.close()
    return back.equals(payload)
  }))
  return { opened: alive, echoed: echoes.filter(Boolean).length }
}

async function perf (node, { address, upload: up = 1 << 20, download: down = 1 << 20 }) {
  const stream = await open(await connectionTo(node, address), PERF)
  const start = performance.now()
  // The server answers once it has all of the upload, so the first byte back ends it.
  let uploaded
  const counting = countToEnd(stream, () => { uploaded = secondsSince(start) })
  const [received] = await aborting(stream, Promise.all([counting, perfUpload(stream, down, up)]))
  const seconds = secondsSince(start)
  uploaded ??= seconds
  if (received !== down) {
    throw new PeerError('Mismatch', `asked for ${down} bytes, received ${received}`)
  }
  return {
    upload_mb_s: round(up / 1e6 / uploaded),
    download_mb_s: down === 0 ? 0 : round(down / 1e6 / (seconds - uploaded)),
    upload_seconds: round(uploaded),
    download_seconds: round(seconds - uploaded),
    seconds: round(seconds)
  }
}

/** The client's half of perf: the length wanted, the upload, the half-close. */
export async function perfUpload (stream, wanted, bytes) {
  const header = Buffer.alloc(8)
  header.writeBigUInt64BE(BigInt(wanted))
  await write(stream, header)
  await writeZeros(stream, bytes)
  await stream.close()
}

/** Wait until mDNS, for which the program needs --mdns, has shown a peer; return where it is. */
function discover (node, { peer_id: wanted }) {
  return new Promise((resolve) => {
    const look = async () => {
      const found = (await node.peerStore.all()).find((peer) => peer.id.toString() === wanted)
      if (found != null && found.addresses.length > 0) {
        node.removeEventListener('peer:discovery', look)
        resolve({ addresses: found.addresses.map((each) => each.multiaddr.toString()) })
      }
    }
    node.addEventListener('peer:discovery', look)
    look()
  })
}

export const commands = {
  connect,
  disconnect,
  discover,
  identify,
  ping,
  echo,
  half_close: (node, options) => upload(node, SINK, options),
  slow: (node, options) => upload(node, SLOW, options),
  reset_remote: resetRemote,
  reset_local: resetLocal,
  streams,
  // A dial that has to fail: the address names a peer that does not live there.
  wrong_peer: connect,
  perf
}
