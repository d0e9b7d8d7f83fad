// A js-libp2p peer that takes commands: one JSON object a line on stdin, one answer a line on stdout.
//   node peer.mjs [--listen MULTIADDR]... [--mdns] [--tls-cert FILE --tls-key FILE] [--tls-ca FILE]
//     [--relay LIMITS] [--autonat] [--dcutr] [--kad PROTOCOL]
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { parseArgs } from 'node:util'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { webSockets } from '@libp2p/websockets'
import { createLibp2p } from 'libp2p'
import { benches } from './bench.mjs'
import { commands } from './commands.mjs'
import { kad, kadService } from './kad.mjs'
import { serve } from './protocols.mjs'
import { reach, reachServices } from './reach.mjs'

const DEFAULT_LISTEN = '/ip4/127.0.0.1/tcp/0'
/** How long the node may take to close its connections once stdin has ended. */
const STOP_MS = 1000

const { values: given } = parseArgs({
  options: {
    listen: { type: 'string', multiple: true },
    mdns: { type: 'boolean' },
    relay: { type: 'string' },
    autonat: { type: 'boolean' },
    dcutr: { type: 'boolean' },
    kad: { type: 'string' },
    'tls-cert': { type: 'string' },
    'tls-key': { type: 'string' },
    'tls-ca': { type: 'string' }
  }
})
if (given['tls-ca'] != null) {
  setDefaultCACertificates([...getCACertificates(), readFileSync(given['tls-ca'], 'utf8')])
}

/** The window up to which js-libp2p's Yamux grows, in bytes. */
const MAX_WINDOW = 16 << 20

const node = await createLibp2p({
  addresses: { listen: given.listen ?? [DEFAULT_LISTEN] },
  peerDiscovery: given.mdns === true ? [(await import('@libp2p/mdns')).mdns()] : [],
  transports: [tcp(), webSockets({ https: certificate() }), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  // js allows 1000 streams each way and 10 before a handler is attached. It grants a fast sender up
  // to 16 MiB, but resets a paused stream that 4 MiB wait in: what is granted must find room.
  streamMuxers: [yamux({
    maxInboundStreams: 4096,
    maxOutboundStreams: 4096,
    maxEarlyStreams: 512,
    streamOptions: { maxStreamWindowSize: MAX_WINDOW, maxReadBufferLength: MAX_WINDOW }
  })],
  connectionManager: {
    // js takes 5 new connections a second from one host, 10 pending and 300 in all; the dial bench
    // makes hundreds from 127.0.0.1.
    inboundConnectionThreshold: 1e6,
    maxIncomingPendingConnections: 512,
    maxConnections: 4096
  },
  services: {
    // One identify stream at a time each way is js's default; the command runs beside the automatic one.
    identify: identify({ maxInboundStreams: 16, maxOutboundStreams: 16 }),
    ping: ping({ maxInboundStreams: 16, maxOutboundStreams: 16 }),
    ...reachServices(given),
    ...kadService(given)
  }
  // The connection monitor stays as it is: it pings every 10 s and aborts a connection that is silent.
})

function certificate () {
  if (given['tls-cert'] == null) {
    return undefined
  }
  return { cert: readFileSync(given['tls-cert']), key: readFileSync(given['tls-key']) }
}

function version () {
  const manifest = new URL('../../package.json', import.meta.resolve('libp2p'))
  return `js-libp2p ${JSON.parse(readFileSync(manifest, 'utf8')).version}`
}

function say (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

async function answer (line) {
  const { id, do: name, ...options } = JSON.parse(line)
  try {
    const command = commands[name] ?? benches[name] ?? reach[name] ?? kad[name]
    if (command == null) {
      throw Object.assign(new Error(`no command ${name}`), { name: 'UnknownCommand' })
    }
    say({ id, ok: true, result: await command(node, options) })
  } catch (error) {
    const cause = error.errors?.[0] ?? error
    const kind = cause.name === 'Error' ? cause.code ?? cause.cause?.code ?? cause.name : cause.name
    say({ id, ok: false, error: cause.message || String(cause), kind })
  }
}

// js-libp2p leaves a rejection behind here and there when a stream is reset: worth a line, not a crash.
process.on('unhandledRejection', (error) => {
  process.stderr.write(`unhandled rejection: ${error?.stack ?? error}\n`)
})

await serve(node)
const input = createInterface({ input: process.stdin })
input.on('line', (line) => { answer(line) })
input.on('close', () => {
  setTimeout(() => process.exit(0), STOP_MS).unref()
  node.stop().finally(() => process.exit(0))
})
say({
  event: 'listening',
  peer_id: node.peerId.toString(),
  // Its own getMultiaddrs() leaves out public addresses that no AutoNAT server has confirmed.
  addresses: node.components.transportManager.getAddrs().map((each) => `${each}/p2p/${node.peerId}`),
  version: version()
})
