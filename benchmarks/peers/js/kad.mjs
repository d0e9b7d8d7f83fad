// A server of the Kademlia DHT, and what it does as a client.
import { setTimeout as delay } from 'node:timers/promises'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'
import { connectionTo } from './commands.mjs'
import { PeerError } from './streams.mjs'

const LOOK_MS = 20

/** The service of the command line, where its protocol is named; loopback addresses stay in it. */
export function kadService ({ kad: protocol }) {
  if (protocol == null) {
    return {}
  }
  return {
    kad: kadDHT({
      protocol,
      clientMode: false,
      peerInfoMapper: passthroughMapper,
      allowQueryWithZeroPeers: true,
      initialQuerySelfInterval: 0
    })
  }
}

function book (node) {
  if (node.services.kad == null) {
    throw new PeerError('NoKad', 'the program needs --kad')
  }
  return node.services.kad
}

/** The content that a service's name stands for, as go-libp2p's discovery has it. */
async function contentOf (service) {
  return CID.createV1(raw.code, await sha256.digest(new TextEncoder().encode(service)))
}

/** Connect to a server and wait until the routing table has grown by it. */
async function join (node, { address }) {
  const table = book(node).routingTable
  const before = table.size
  const connection = await connectionTo(node, address)
  while (table.size === before && await table.find(connection.remotePeer) == null) {
    await delay(LOOK_MS)
  }
  return { peer_id: connection.remotePeer.toString() }
}

async function provide (node, { service }) {
  let told = 0
  for await (const { name } of book(node).provide(await contentOf(service))) {
    told += name === 'PEER_RESPONSE' ? 1 : 0
  }
  return { told }
}

async function find (node, { service, count = 20 }) {
  const found = new Map()
  for await (const { name, providers } of book(node).findProviders(await contentOf(service))) {
    for (const { id, multiaddrs } of name === 'PROVIDER' ? providers : []) {
      const known = found.get(id.toString()) ?? new Set()
      multiaddrs.forEach((each) => known.add(each.toString()))
      found.set(id.toString(), known)
    }
    if (found.size >= count) {
      break
    }
  }
  return { peers: [...found].map(([id, addresses]) => ({ peer_id: id, addresses: [...addresses] })) }
}

export const kad = { join, provide, find }
