//! Plain streams by protocol, both ways.
//!
//! libp2p-stream would be the crate for it, but it hands an inbound stream over through a channel
//! with room for one and drops the next when several arrive in one turn of the connection; and it
//! negotiates one outbound stream at a time, on any connection to the peer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::Cloned;
use std::slice::Iter;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, StreamUpgradeError, SubstreamProtocol, ToSwarm,
};
use libp2p::{PeerId, Stream, StreamProtocol};

use crate::failure::Failure;

/// Takes over an inbound stream; it must not block.
pub type Accept = fn(&StreamProtocol, Stream);

type Reply = oneshot::Sender<Result<Stream, Failure>>;
type Requests = mpsc::UnboundedSender<(StreamProtocol, Reply)>;

/// An established connection, to open streams on.
#[derive(Clone)]
pub struct Connection {
    pub id: ConnectionId,
    pub peer: PeerId,
    requests: Requests,
}

impl Connection {
    /// Opens a stream; returns when the peer has agreed to the protocol.
    pub async fn open(&self, protocol: StreamProtocol) -> Result<Stream, Failure> {
        let closed = || Failure::new("ConnectionClosed", "the connection is closed");
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.unbounded_send((protocol, reply));
        sent.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

pub struct Behaviour {
    served: &'static [StreamProtocol],
    accept: Accept,
    requests: HashMap<ConnectionId, Requests>,
}

impl Behaviour {
    pub fn new(served: &'static [StreamProtocol], accept: Accept) -> Self {
        Self {
            served,
            accept,
            requests: HashMap::new(),
        }
    }

    /// The connection of this id, if it is established.
    pub fn connection(&self, id: ConnectionId, peer: PeerId) -> Option<Connection> {
        let requests = self.requests.get(&id)?.clone();
        Some(Connection { id, peer, requests })
    }

    fn handler(&mut self, id: ConnectionId) -> Handler {
        let (sender, receiver) = mpsc::unbounded();
        self.requests.insert(id, sender);
        Handler {
            served: self.served,
            accept: self.accept,
            requests: receiver,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        // The other two: another behaviour refused the connection after this one had accepted it.
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::DialFailure(failed) => failed.connection_id,
            FromSwarm::ListenFailure(failed) => failed.connection_id,
            _ => return,
        };
        self.requests.remove(&gone);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

pub struct Handler {
    served: &'static [StreamProtocol],
    accept: Accept,
    requests: mpsc::UnboundedReceiver<(StreamProtocol, Reply)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Served;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Served> {
        SubstreamProtocol::new(Served(self.served), ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Reply, Infallible>> {
        match self.requests.poll_next_unpin(context) {
            Poll::Ready(Some((protocol, reply))) => {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(ReadyUpgrade::new(protocol), reply),
                })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Served, ReadyUpgrade<StreamProtocol>, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => (self.accept)(&protocol, stream),
            // Whoever asked may have gone; then the stream is dropped, which resets it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => drop(reply.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                drop(reply.send(Err(refused(error))));
            }
            _ => {}
        }
    }
}

fn refused(error: StreamUpgradeError<Infallible>) -> Failure {
    match error {
        StreamUpgradeError::NegotiationFailed => Failure::new(
            "UnsupportedProtocol",
            "the peer does not speak the protocol",
        ),
        StreamUpgradeError::Timeout => {
            Failure::new("Timeout", "the peer did not agree to the protocol in time")
        }
        StreamUpgradeError::Io(error) => error.into(),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// The protocols that an inbound stream may ask for.
pub struct Served(&'static [StreamProtocol]);

impl UpgradeInfo for Served {
    type Info = StreamProtocol;
    type InfoIter = Cloned<Iter<'static, StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().cloned()
    }
}

impl InboundUpgrade<Stream> for Served {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
