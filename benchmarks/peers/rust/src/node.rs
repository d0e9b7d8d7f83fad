//! The node: one task owns the swarm, commands run closures on it and wait for its events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, dcutr, identify, relay};

use crate::behaviour::{Behaviour, BehaviourEvent, Event};
use crate::failure::Failure;
use crate::streams::Connection;

type Outcome<T> = Option<Result<T, Failure>>;
type Job = Box<dyn FnOnce(&mut Driver) + Send>;
/// Sees every event; true when it has seen what it waited for.
type Watcher = Box<dyn FnMut(&Event, &Known) -> bool + Send>;

/// A handle of the node, for many commands at a time.
#[derive(Clone)]
pub struct Node {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Node {
    /// Starts the task that drives the swarm.
    pub fn start(swarm: Swarm<Behaviour>) -> Self {
        let (jobs, receiver) = mpsc::unbounded();
        let driver = Driver {
            swarm,
            known: Known::default(),
            watchers: Vec::new(),
        };
        tokio::spawn(driver.run(receiver));
        Self { jobs }
    }

    /// Runs `begin` on the swarm; if that has no outcome yet, shows every later event to `check`.
    pub async fn until<T: Send + 'static>(
        &self,
        begin: impl FnOnce(&mut Swarm<Behaviour>, &Known) -> Outcome<T> + Send + 'static,
        mut check: impl FnMut(&Event, &Known) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = move |driver: &mut Driver| {
            let outcome = begin(&mut driver.swarm, &driver.known);
            let mut reply = Some(reply);
            let mut finish = move |outcome: Outcome<T>| match outcome {
                Some(result) => {
                    reply.take().map(|reply| reply.send(result));
                    true
                }
                None => reply.as_ref().is_none_or(oneshot::Sender::is_canceled),
            };
            if !finish(outcome) {
                let watcher = move |event: &Event, known: &Known| finish(check(event, known));
                driver.watchers.push(Box::new(watcher));
            }
        };
        let stopped = || Failure::new("Stopped", "the node has stopped");
        let sent = self.jobs.unbounded_send(Box::new(job));
        sent.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Returns the connection to the peer of the address, a new one if there is none.
    pub async fn connect(&self, address: &Multiaddr) -> Result<Connection, Failure> {
        let Some(peer) = peer_of(address) else {
            return self.dial(address).await;
        };
        let options = DialOpts::peer_id(peer)
            .addresses(vec![address.clone()])
            .build();
        self.until(
            move |swarm, known| match known.to(peer).next() {
                Some(connection) => Some(Ok(connection.clone())),
                // A dial that is under way serves this caller too.
                None => match swarm.dial(options) {
                    Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => None,
                    Err(error) => Some(Err((&error).into())),
                },
            },
            move |event, known| match event {
                Event::ConnectionEstablished { peer_id, .. } if *peer_id == peer => {
                    known.to(peer).next().cloned().map(Ok)
                }
                Event::OutgoingConnectionError { peer_id, error, .. } if *peer_id == Some(peer) => {
                    Some(Err(error.into()))
                }
                _ => None,
            },
        )
        .await
    }

    /// Makes a new connection, even if there is one.
    pub async fn dial(&self, address: &Multiaddr) -> Result<Connection, Failure> {
        let options = match peer_of(address) {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(vec![address.clone()])
                .build(),
            None => DialOpts::from(address.clone()),
        };
        let id = options.connection_id();
        self.until(
            move |swarm, _| swarm.dial(options).err().map(|error| Err((&error).into())),
            move |event, known| match event {
                Event::ConnectionEstablished { connection_id, .. } if *connection_id == id => {
                    known.entry(id).map(|entry| Ok(entry.connection.clone()))
                }
                Event::OutgoingConnectionError {
                    connection_id,
                    error,
                    ..
                } if *connection_id == id => Some(Err(error.into())),
                _ => None,
            },
        )
        .await
    }

    /// Closes the connection; returns when it is closed.
    pub async fn close(&self, id: ConnectionId) -> Result<(), Failure> {
        self.until(
            move |swarm, _| (!swarm.close_connection(id)).then_some(Ok(())),
            move |event, _| closes(event, id).then_some(Ok(())),
        )
        .await
    }

    /// The connections to a peer, the direct ones first.
    pub async fn connections(&self, peer: PeerId) -> Result<Vec<Connection>, Failure> {
        self.look(move |known| known.to(peer).cloned().collect())
            .await
    }

    /// Looks at what is known now.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Known) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.until(move |_, known| Some(Ok(look(known))), |_, _| None)
            .await
    }

    /// Waits until `look` finds something in what is known about the connection.
    pub async fn about<T: Send + 'static>(
        &self,
        id: ConnectionId,
        look: fn(&Entry) -> Outcome<T>,
    ) -> Result<T, Failure> {
        let find = move |known: &Known| match known.entry(id) {
            Some(entry) => look(entry),
            None => Some(Err(Failure::new(
                "ConnectionClosed",
                "the connection closed",
            ))),
        };
        self.until(move |_, known| find(known), move |_, known| find(known))
            .await
    }
}

/// What the events have told.
#[derive(Default)]
pub struct Known {
    /// The connections that are open.
    connections: BTreeMap<ConnectionId, Entry>,
    /// As a relay: who holds a reservation, and how many circuits there are.
    pub reservations: BTreeSet<PeerId>,
    pub circuits: i64,
    /// Whether a peer has observed an address that may be an external one.
    pub observed: bool,
    /// How the last attempt to reach a peer directly has ended.
    pub punched: BTreeMap<PeerId, Result<ConnectionId, Failure>>,
    /// What AutoNAT servers said of an address.
    pub verdicts: BTreeMap<Multiaddr, Result<(), Failure>>,
}

pub struct Entry {
    pub connection: Connection,
    pub address: Multiaddr,
    pub dialled: bool,
    pub relayed: bool,
    /// What identify received last, or why it failed.
    pub identified: Outcome<identify::Info>,
    /// How libp2p's own ping ended last.
    pub pinged: Outcome<Duration>,
}

impl Known {
    pub fn entry(&self, id: ConnectionId) -> Option<&Entry> {
        self.connections.get(&id)
    }

    /// The connections to a peer, the direct ones first, then the oldest.
    pub fn to(&self, peer: PeerId) -> impl Iterator<Item = &Connection> {
        self.entries(peer)
            .into_iter()
            .map(|entry| &entry.connection)
    }

    pub fn entries(&self, peer: PeerId) -> Vec<&Entry> {
        let all = self.connections.values();
        let mut found: Vec<_> = all.filter(|entry| entry.connection.peer == peer).collect();
        found.sort_by_key(|entry| entry.relayed);
        found
    }
}

struct Driver {
    swarm: Swarm<Behaviour>,
    known: Known,
    watchers: Vec<Watcher>,
}

impl Driver {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        loop {
            tokio::select! {
                job = jobs.next() => match job {
                    Some(job) => job(&mut self),
                    None => return,
                },
                event = self.swarm.select_next_some() => {
                    self.learn(&event);
                    let known = &self.known;
                    self.watchers.retain_mut(|watcher| !watcher(&event, known));
                }
            }
        }
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::ConnectionEstablished {
                connection_id: id,
                peer_id,
                endpoint,
                ..
            } => {
                let streams = &self.swarm.behaviour().streams;
                if let Some(connection) = streams.connection(*id, *peer_id) {
                    let entry = Entry {
                        connection,
                        address: endpoint.get_remote_address().clone(),
                        dialled: endpoint.is_dialer(),
                        relayed: endpoint.is_relayed(),
                        identified: None,
                        pinged: None,
                    };
                    self.known.connections.insert(*id, entry);
                }
            }
            Event::ConnectionClosed { connection_id, .. } => {
                self.known.connections.remove(connection_id);
            }
            Event::Behaviour(BehaviourEvent::Identify(event)) => self.learn_identity(event),
            Event::Behaviour(BehaviourEvent::Ping(event)) => {
                if let Some(entry) = self.known.connections.get_mut(&event.connection) {
                    let result = event.result.as_ref().copied();
                    entry.pinged =
                        Some(result.map_err(|why| Failure::new("Ping", why.to_string())));
                }
            }
            Event::NewExternalAddrCandidate { .. } => self.known.observed = true,
            Event::Behaviour(BehaviourEvent::Relay(event)) => self.learn_relay(event),
            Event::Behaviour(BehaviourEvent::Dcutr(dcutr::Event {
                remote_peer_id,
                result,
            })) => {
                let result = result.as_ref().copied();
                let result = result.map_err(|why| Failure::new("HolePunch", why.to_string()));
                self.known.punched.insert(*remote_peer_id, result);
            }
            Event::Behaviour(BehaviourEvent::Autonat(autonat::v2::client::Event {
                tested_addr,
                result,
                ..
            })) => {
                let result = result.as_ref().copied();
                let result = result.map_err(|why| Failure::new("Unreachable", why.to_string()));
                self.known.verdicts.insert(tested_addr.clone(), result);
            }
            _ => {}
        }
    }

    fn learn_relay(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.known.reservations.insert(*src_peer_id);
            }
            relay::Event::ReservationClosed { src_peer_id }
            | relay::Event::ReservationTimedOut { src_peer_id } => {
                self.known.reservations.remove(src_peer_id);
            }
            relay::Event::CircuitReqAccepted { .. } => self.known.circuits += 1,
            relay::Event::CircuitClosed { .. } => self.known.circuits -= 1,
            _ => {}
        }
    }

    fn learn_identity(&mut self, event: &identify::Event) {
        let Some(entry) = self.known.connections.get_mut(&event.connection_id()) else {
            return;
        };
        match event {
            identify::Event::Received { info, .. } => entry.identified = Some(Ok(info.clone())),
            // It also tells of an answer that could not be sent: what was received stays.
            identify::Event::Error { error, .. } if entry.identified.is_none() => {
                entry.identified = Some(Err(Failure::new("Identify", error.to_string())));
            }
            _ => {}
        }
    }
}

/// The peer that an address ends with.
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

fn closes(event: &Event, id: ConnectionId) -> bool {
    matches!(event, Event::ConnectionClosed { connection_id, .. } if *connection_id == id)
}
