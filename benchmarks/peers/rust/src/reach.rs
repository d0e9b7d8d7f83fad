//! Reaching a peer by the help of a third: circuit relay v2, AutoNAT v2, DCUtR.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::{FromSwarm, NewExternalAddrCandidate};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, relay};
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::behaviour::{Behaviour, BehaviourEvent, Event};
use crate::commands::{Answer, Options};
use crate::failure::Failure;
use crate::node::{Entry, Known, Node, peer_of};

/// Between two looks of AutoNAT for addresses to ask about; the default is 5 s.
const PROBE: Duration = Duration::from_millis(100);
const PAGE: u64 = 4096;

/// What the command line asked for.
#[derive(Default)]
pub struct Reach {
    /// The limits of a relay, JSON; what is not there is rust-libp2p's default, and seconds or bytes
    /// of 0 mean no limit.
    limits: Option<Value>,
    pub autonat: bool,
    pub dcutr: bool,
}

impl Reach {
    pub fn limit(&mut self, text: &str) -> Result<(), Failure> {
        let limits: Value = serde_json::from_str(text)
            .map_err(|error| Failure::new("Usage", format!("--relay LIMITS, JSON: {error}")))?;
        self.limits = Some(limits);
        Ok(())
    }

    pub fn relay(&self, own: PeerId) -> Option<relay::Behaviour> {
        let limits = self.limits.as_ref()?;
        let whole = |name: &str| limits[name].as_u64();
        let span = |name: &str| limits[name].as_f64().map(Duration::from_secs_f64);
        let mut config = relay::Config::default();
        // All peers of a test have one address.
        config.reservation_rate_limiters.clear();
        config.circuit_src_rate_limiters.clear();
        if let Some(count) = whole("reservations") {
            config.max_reservations = count as usize;
        }
        if let Some(count) = whole("circuits") {
            config.max_circuits_per_peer = count as usize;
            config.max_circuits = config.max_reservations.saturating_mul(count as usize);
        }
        if let Some(ttl) = span("ttl") {
            config.reservation_duration = ttl;
        }
        if let Some(limit) = span("seconds") {
            let endless = Duration::from_secs(u32::MAX.into());
            config.max_circuit_duration = if limit.is_zero() { endless } else { limit };
        }
        if let Some(limit) = whole("bytes") {
            config.max_circuit_bytes = limit;
        }
        Some(relay::Behaviour::new(own, config))
    }

    pub fn autonat_client(&self) -> Option<autonat::v2::client::Behaviour> {
        let config = autonat::v2::client::Config::default().with_probe_interval(PROBE);
        self.autonat
            .then(|| autonat::v2::client::Behaviour::new(rand::make_rng::<StdRng>(), config))
    }

    pub fn autonat_server(&self) -> Option<autonat::v2::server::Behaviour> {
        self.autonat.then(autonat::v2::server::Behaviour::default)
    }
}

/// A relay takes reservations only where it believes itself reachable, and tells those addresses.
pub fn advertise(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) {
    if swarm.behaviour().relay.is_enabled() {
        for address in addresses {
            swarm.add_external_address(address.clone());
        }
    }
}

/// Listens through the relay at the address; rust-libp2p renews the reservation by itself.
pub async fn reserve(node: &Node, options: &Options) -> Answer {
    let circuit = options.address()?.with(Protocol::P2pCircuit);
    let listener = Arc::new(OnceLock::new());
    let listening = listener.clone();
    let mut limit = None;
    let mut found = None;
    node.until(
        move |swarm, _| match swarm.listen_on(circuit) {
            Ok(id) => {
                // Set once, and read only afterwards.
                let _ = listener.set(id);
                None
            }
            Err(error) => Some(Err(Failure::new("Listen", format!("{error:?}")))),
        },
        move |event, _| {
            match event {
                Event::Behaviour(BehaviourEvent::Circuits(
                    relay::client::Event::ReservationReqAccepted { limit: told, .. },
                )) => {
                    // The type of a limit has no public name, so no function can take it.
                    limit = Some(told.map_or(Value::Null, |limit| {
                        let seconds = limit.duration().map_or(0, |span| span.as_secs());
                        json!({ "seconds": seconds, "bytes": limit.data_in_bytes().unwrap_or(0) })
                    }));
                }
                Event::NewListenAddr {
                    listener_id,
                    address,
                } if Some(listener_id) == listening.get() => found = Some(address.clone()),
                Event::ListenerClosed {
                    listener_id,
                    reason,
                    ..
                } if Some(listener_id) == listening.get() => {
                    return Some(Err(Failure::new("Reservation", format!("{reason:?}"))));
                }
                _ => {}
            }
            let (limit, address) = (limit.clone()?, found.as_ref()?);
            Some(Ok(json!({
                "addresses": [address.to_string()],
                "expires": null,
                "limit": limit,
            })))
        },
    )
    .await
}

/// As a relay: how many reservations and circuits there are, and who holds a reservation.
pub async fn reservations(node: &Node) -> Answer {
    node.until(
        |swarm, known| {
            let told = json!({
                "reservations": known.reservations.len(),
                "circuits": known.circuits,
                "peers": known.reservations.iter().map(PeerId::to_string).collect::<Vec<_>>(),
            });
            let missing = Failure::new("NoRelay", "the program needs --relay");
            let serves = swarm.behaviour().relay.is_enabled();
            Some(if serves { Ok(told) } else { Err(missing) })
        },
        |_, _| None,
    )
    .await
}

pub async fn connections(node: &Node, options: &Options) -> Answer {
    let peer = peer_at_end(options)?;
    let all = node
        .look(move |known| {
            let entries = known.entries(peer);
            let all = entries.into_iter().map(|entry| described(entry, None));
            all.collect::<Vec<_>>()
        })
        .await?;
    Ok(json!({ "connections": all }))
}

/// Waits until a peer has observed an address: rust-libp2p tells those of then, not later ones.
pub async fn can_punch(node: &Node) -> Answer {
    let ready = |known: &Known| known.observed.then(|| Ok(json!({ "ready": true })));
    node.until(
        move |swarm, known| {
            if swarm.behaviour().dcutr.is_enabled() {
                return ready(known);
            }
            let missing = Failure::new("NoDcutr", "the program needs --dcutr");
            Some(Err(missing))
        },
        move |_, known| ready(known),
    )
    .await
}

/// Waits until there is a direct connection to the peer, or hole punching has given up.
pub async fn upgraded(node: &Node, options: &Options) -> Answer {
    let peer = peer_at_end(options)?;
    let punches = node
        .until(
            |swarm, _| Some(Ok(swarm.behaviour().dcutr.is_enabled())),
            |_, _| None,
        )
        .await?;
    let find = move |known: &Known| {
        let mut direct = known.entries(peer);
        direct.retain(|entry| !entry.relayed);
        let found = match known.punched.get(&peer) {
            Some(Ok(id)) => direct.iter().find(|entry| entry.connection.id == *id),
            Some(Err(failure)) if direct.is_empty() => return Some(Err(failure.clone())),
            _ => None,
        };
        if let Some(entry) = found {
            return Some(Ok(described(entry, Some("punch"))));
        }
        // Of one that was made here it will be told in a moment whether that was by punching.
        let other = direct.iter().find(|entry| !entry.dialled || !punches)?;
        Some(Ok(described(other, None)))
    };
    node.until(move |_, known| find(known), move |_, known| find(known))
        .await
}

fn described(entry: &Entry, how: Option<&str>) -> Value {
    let mut address = entry.address.clone();
    if peer_of(&address) == Some(entry.connection.peer) {
        address.pop();
    }
    json!({
        "address": address.to_string(),
        "dialled": entry.dialled,
        "relayed": entry.relayed,
        "limited": null,
        "how": how,
    })
}

fn peer_at_end(options: &Options) -> Result<PeerId, Failure> {
    peer_of(&options.address()?)
        .ok_or_else(|| Failure::new("InvalidMultiaddr", "the address names no peer"))
}

/// Connects to a server of AutoNAT and has it tested, one by one, whether it reaches the addresses.
/// A server that refuses is asked again and again: then there is no verdict in time.
pub async fn autonat(node: &Node, options: &Options) -> Answer {
    let limit = options.duration("seconds", 5.0)?;
    node.connect(&options.address()?).await?;
    let given = options.addresses("addresses")?;
    let wanted = node
        .until(
            move |swarm, _| Some(begin_autonat(swarm, given)),
            |_, _| None,
        )
        .await?;
    let asked = wanted.clone();
    let all = move |known: &Known| {
        let told = |address| known.verdicts.contains_key(address);
        wanted.iter().all(told).then_some(Ok(()))
    };
    let later = all.clone();
    let told = node.until(move |_, known| all(known), move |_, known| later(known));
    if let Ok(failed) = timeout(limit, told).await {
        failed?;
    }
    let verdicts = node
        .look(move |known| {
            asked
                .iter()
                .map(|each| verdict(known, each))
                .collect::<Vec<_>>()
        })
        .await?;
    Ok(json!({ "verdicts": verdicts }))
}

/// Hands the addresses to AutoNAT, as identify does with what peers have observed.
fn begin_autonat(
    swarm: &mut Swarm<Behaviour>,
    given: Option<Vec<Multiaddr>>,
) -> Result<Vec<Multiaddr>, Failure> {
    let wanted = given.unwrap_or_else(|| swarm.listeners().cloned().collect());
    let Some(client) = swarm.behaviour_mut().autonat.as_mut() else {
        return Err(Failure::new("NoAutonat", "the program needs --autonat"));
    };
    for addr in &wanted {
        let candidate = NewExternalAddrCandidate { addr };
        client.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }
    Ok(wanted)
}

fn verdict(known: &Known, address: &Multiaddr) -> Value {
    let (reachable, why) = match known.verdicts.get(address) {
        Some(Ok(())) => (Some(true), None),
        Some(Err(failure)) => (Some(false), Some(failure.text.clone())),
        None => (None, Some("no verdict in time".to_owned())),
    };
    json!({ "address": address.to_string(), "reachable": reachable, "why": why })
}

/// What this process holds; Linux only.
pub fn census() -> Answer {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    Ok(json!({ "rss": pages.unwrap_or(0) * PAGE }))
}
