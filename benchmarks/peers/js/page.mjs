// A page of js-libp2p: dials the address behind its #, pings, has a mebibyte echoed, and posts to
// /result what came of it.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { Reader, write } from './streams.mjs'

const ECHO = '/echo/1.0.0'
const CHUNK = 1 << 16
const CHUNKS = 16

async function visit (address) {
  const node = await createLibp2p({
    transports: [webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // In browsers js-libp2p denies addresses of this machine.
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify(), ping: ping() }
  })
  const connection = await node.dial(multiaddr(address))
  const roundTrip = await node.services.ping.ping(connection.remotePeer)
  const stream = await connection.newStream(ECHO)
  const reader = new Reader(stream)
  const chunk = crypto.getRandomValues(new Uint8Array(CHUNK))
  const received = receive(reader)
  for (let count = 0; count < CHUNKS; count++) {
    await write(stream, chunk)
  }
  await stream.close()
  const echoed = await received
  const matches = echoed.length === CHUNK * CHUNKS &&
    echoed.every((byte, index) => byte === chunk[index % CHUNK])
  const peer = connection.remotePeer.toString()
  await node.stop()
  return { peer_id: peer, rtt_ms: roundTrip, bytes: echoed.length, matches }
}

async function receive (reader) {
  const bytes = new Uint8Array(CHUNK * CHUNKS)
  let size = 0
  for (let part = await reader.next(); part != null; part = await reader.next()) {
    bytes.set(part, size)
    size += part.length
  }
  return bytes.subarray(0, size)
}

async function main () {
  let result
  try {
    result = await visit(location.hash.slice(1))
  } catch (error) {
    result = { error: String(error?.stack ?? error) }
  }
  await fetch('/result', { method: 'POST', body: JSON.stringify(result) })
}

main()
