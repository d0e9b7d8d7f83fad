// Reaching a peer by the help of a third: circuit relay v2, AutoNAT v2, DCUtR.
import { setTimeout as delay } from 'node:timers/promises'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { circuitRelayServer, RELAY_V2_STOP_CODEC } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { isPrivate } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { connectionTo, connectionsTo, peerOf } from './commands.mjs'
import { PeerError } from './streams.mjs'

/** What js-libp2p can wait for, in milliseconds, and count: its relay has no word for "no limit". */
const LONGEST_MS = 2 ** 31 - 1
const MOST_BYTES = 2n ** 62n
const LOOK_MS = 20

/** The services of the command line; the limits of the relay are JSON, see ../control.py. */
export function reachServices ({ relay, autonat, dcutr: punch }) {
  return {
    ...(relay != null ? { relay: relayServer(JSON.parse(relay)) } : {}),
    ...(autonat === true ? { autonat: autoNATv2() } : {}),
    ...(punch === true ? { dcutr: dcutr() } : {})
  }
}

function relayServer ({ reservations, circuits, ttl, seconds, bytes }) {
  return circuitRelayServer({
    // Streams a connection: what comes nearest to circuits of one peer, as source and as target.
    maxInboundHopStreams: circuits,
    maxOutboundStopStreams: circuits,
    reservations: {
      maxReservations: reservations,
      reservationTtl: ttl == null ? undefined : ttl * 1000,
      applyDefaultLimit: seconds !== 0 || bytes !== 0,
      defaultDurationLimit: seconds == null ? undefined : seconds === 0 ? LONGEST_MS : seconds * 1000,
      defaultDataLimit: bytes == null ? undefined : bytes === 0 ? MOST_BYTES : BigInt(bytes)
    }
  })
}

/** Listen through the relay at the address; js-libp2p renews the reservation by itself. */
async function reserve (node, { address }) {
  const relay = multiaddr(address)
  const { transportManager } = node.components
  await transportManager.listen([relay.encapsulate('/p2p-circuit')])
  const id = peerOf(address)
  const circuit = transportManager.getTransports().find((each) => each.reservationStore != null)
  const held = [...circuit.reservationStore.reservations].find(([peer]) => peer.toString() === id)
  if (held == null) {
    throw new PeerError('NoReservation', `${id} gave none`)
  }
  const through = `/p2p/${id}/p2p-circuit`
  return {
    addresses: node.getMultiaddrs().map(String).filter((each) => each.includes(through)),
    expires: Number(held[1].reservation.expire),
    // js-libp2p forgets what the relay said of limits.
    limit: null
  }
}

/** As a relay: how many reservations and circuits there are, and who holds a reservation. */
async function reservations (node) {
  const { relay } = node.services
  if (relay == null) {
    throw new PeerError('NoRelay', 'the program needs --relay')
  }
  const streams = node.getConnections().flatMap((connection) => connection.streams)
  return {
    reservations: relay.reservations.size,
    circuits: streams.filter(({ protocol }) => protocol === RELAY_V2_STOP_CODEC).length,
    peers: [...relay.reservations.keys()].map(String)
  }
}

/** The connections to a peer. */
async function connections (node, { address }) {
  return { connections: connectionsTo(node, address).map(described) }
}

/** Hole punching is there from the start; whether it has an address to tell depends on AutoNAT. */
async function canPunch (node) {
  if (node.services.dcutr == null) {
    throw new PeerError('NoDcutr', 'the program needs --dcutr')
  }
  return { ready: true }
}

/** Wait until there is a direct connection to a peer. */
async function upgraded (node, { address }) {
  for (;;) {
    const found = connectionsTo(node, address).find(({ direct }) => direct)
    if (found != null) {
      return { ...described(found), how: null }
    }
    await delay(LOOK_MS)
  }
}

function described (connection) {
  const { direct, direction, limits, remoteAddr, remotePeer } = connection
  const address = remoteAddr.toString()
  const suffix = `/p2p/${remotePeer}`
  return {
    address: address.endsWith(suffix) ? address.slice(0, -suffix.length) : address,
    dialled: direction === 'outbound',
    relayed: !direct,
    limited: limits != null
  }
}

/**
 * Connect to a server of AutoNAT, which js-libp2p then asks by itself about its public addresses
 * that nobody has confirmed yet. One server's answer makes an address reachable, but eight
 * failures it takes to make it unreachable: then there is no verdict in time.
 */
async function autonat (node, { address, addresses, seconds = 5 }) {
  if (node.services.autonat == null) {
    throw new PeerError('NoAutonat', 'the program needs --autonat')
  }
  await connectionTo(node, address)
  const { addressManager, transportManager } = node.components
  const wanted = addresses?.map((each) => multiaddr(each)) ?? transportManager.getAddrs()
  const confirmed = (each) => !isPrivate(each) && addressManager.getAddressesWithMetadata()
    .some(({ multiaddr: known, verified }) => verified && known.equals(each))
  const deadline = performance.now() + seconds * 1000
  while (!wanted.every(confirmed) && performance.now() < deadline) {
    await delay(LOOK_MS)
  }
  return {
    verdicts: wanted.map((each) => ({
      address: each.toString(),
      reachable: confirmed(each) ? true : null,
      why: confirmed(each) ? null : isPrivate(each) ? 'private' : 'no verdict in time'
    }))
  }
}

/** What this process holds. */
async function census () {
  return { rss: process.memoryUsage.rss() }
}

export const reach = { reserve, reservations, connections, can_punch: canPunch, upgraded, autonat, census }
