//! What the node speaks, and how its swarm is set up.

use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, autonat, dcutr, identify, noise, ping, relay, tcp, yamux};

use crate::failure::Failure;
use crate::reach::Reach;
use crate::{protocols, streams};

/// rust-libp2p closes a connection that has had no stream for 10 s; a command may come later.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Yamux takes 512 streams, both directions together; the tests open 500 beside identify and ping.
const MAX_STREAMS: usize = 1024;
/// rust-libp2p lets 128 streams negotiate at a time and drops some of a larger burst.
const MAX_NEGOTIATING: usize = 1024;

pub type Event = SwarmEvent<BehaviourEvent>;

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub streams: streams::Behaviour,
    pub circuits: relay::client::Behaviour,
    pub relay: Toggle<relay::Behaviour>,
    pub autonat: Toggle<autonat::v2::client::Behaviour>,
    pub autonat_server: Toggle<autonat::v2::server::Behaviour>,
    pub dcutr: Toggle<dcutr::Behaviour>,
}

/// A swarm with a new identity, which listens nowhere yet.
pub fn swarm(reach: Reach) -> Result<Swarm<Behaviour>, Failure> {
    let noise = |error: noise::Error| Failure::new("Noise", error.to_string());
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            multiplexer,
        )
        .map_err(noise)?
        .with_relay_client(noise::Config::new, multiplexer)
        .map_err(noise)?
        .with_behaviour(|key, circuits| behaviour(key, circuits, reach))
        .expect("building it cannot fail")
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE)
                .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
        })
        .build();
    Ok(swarm)
}

fn behaviour(key: &Keypair, circuits: relay::client::Behaviour, reach: Reach) -> Behaviour {
    let own = key.public().to_peer_id();
    let about = identify::Config::new("ipfs/0.1.0".to_owned(), key.public());
    Behaviour {
        identify: identify::Behaviour::new(about),
        ping: ping::Behaviour::default(),
        streams: streams::Behaviour::new(protocols::SERVED, protocols::serve),
        circuits,
        autonat: reach.autonat_client().into(),
        autonat_server: reach.autonat_server().into(),
        dcutr: reach.dcutr.then(|| dcutr::Behaviour::new(own)).into(),
        relay: reach.relay(own).into(),
    }
}

fn multiplexer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config
}
