//! A rust-libp2p peer that takes commands: a JSON object a line on stdin, an answer a line on stdout.
//!
//!     isthmus-rust-peer [--listen MULTIADDR]... [--relay LIMITS] [--autonat] [--dcutr]

mod behaviour;
mod bench;
mod commands;
mod failure;
mod node;
mod protocols;
mod reach;
mod streams;
mod task;
mod transfer;

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::behaviour::{Behaviour, Event};
use crate::commands::Options;
use crate::failure::Failure;
use crate::node::Node;
use crate::reach::Reach;

const DEFAULT_LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// rust-libp2p tells the interfaces of an unspecified address one by one, and not which is the last.
const INTERFACES: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() {
    if let Err(failure) = serve().await {
        eprintln!("{}: {}", failure.kind, failure.text);
        std::process::exit(1);
    }
    // Tasks may still run, but nobody listens any more.
    std::process::exit(0);
}

async fn serve() -> Result<(), Failure> {
    let (listen, reach) = arguments()?;
    let mut swarm = behaviour::swarm(reach)?;
    let addresses = listening(&mut swarm, listen).await?;
    reach::advertise(&mut swarm, &addresses);
    let peer = *swarm.local_peer_id();
    let node = Node::start(swarm);
    let full = |address: Multiaddr| address.with(Protocol::P2p(peer)).to_string();
    say(&json!({
        "event": "listening",
        "peer_id": peer.to_string(),
        "addresses": addresses.into_iter().map(full).collect::<Vec<_>>(),
        "version": format!("rust-libp2p {}", version()),
    }));
    let mut lines = stdin_lines();
    while let Some(line) = lines.next().await {
        tokio::spawn(answer(node.clone(), line));
    }
    Ok(())
}

fn arguments() -> Result<(Vec<Multiaddr>, Reach), Failure> {
    let mut addresses = Vec::new();
    let mut reach = Reach::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--autonat" => reach.autonat = true,
            "--dcutr" => reach.dcutr = true,
            "--relay" => reach.limit(&arguments.next().unwrap_or_default())?,
            "--listen" => addresses.push(listen_address(arguments.next())?),
            _ => return Err(Failure::new("Usage", format!("no option {name}"))),
        }
    }
    if addresses.is_empty() {
        addresses.extend(DEFAULT_LISTEN.parse::<Multiaddr>());
    }
    Ok((addresses, reach))
}

fn listen_address(given: Option<String>) -> Result<Multiaddr, Failure> {
    let text = given.unwrap_or_default();
    match text.parse::<Multiaddr>() {
        Ok(address) if !address.is_empty() => Ok(address),
        _ => Err(Failure::new(
            "Usage",
            format!("--listen MULTIADDR, not {text:?}"),
        )),
    }
}

/// Listens everywhere; returns the addresses with their ports.
async fn listening(
    swarm: &mut Swarm<Behaviour>,
    listen: Vec<Multiaddr>,
) -> Result<Vec<Multiaddr>, Failure> {
    let mut waiting = HashSet::new();
    let mut found = Vec::new();
    let several = listen.iter().any(is_unspecified);
    for address in listen {
        // Its own words leave out the cause.
        let refused = |error| Failure::new("Listen", format!("{address}: {error:?}"));
        waiting.insert(swarm.listen_on(address.clone()).map_err(refused)?);
    }
    let mut note = |event: Event| match event {
        Event::NewListenAddr {
            listener_id,
            address,
        } => {
            waiting.remove(&listener_id);
            found.push(address);
            Ok(waiting.is_empty())
        }
        Event::ListenerClosed { reason, .. } => {
            reason?;
            Err(Failure::new("Listen", "a listener closed"))
        }
        _ => Ok(waiting.is_empty()),
    };
    while !note(swarm.select_next_some().await)? {}
    while several && let Ok(event) = timeout(INTERFACES, swarm.select_next_some()).await {
        note(event)?;
    }
    Ok(found)
}

fn is_unspecified(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified(),
        _ => false,
    })
}

/// The version of libp2p that was built in; the crate itself does not tell it.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split("name = \"libp2p\"\nversion = \"").nth(1);
    after.and_then(|rest| rest.split('"').next()).unwrap_or("?")
}

/// The lines of stdin until its end, read by a thread of their own.
fn stdin_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.unbounded_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn answer(node: Node, line: String) {
    let request: Value = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return eprintln!("not a command: {error}: {line}"),
    };
    let id = request["id"].clone();
    let name = request["do"].as_str().unwrap_or_default().to_owned();
    match commands::run(&node, &name, &Options(request)).await {
        Ok(result) => say(&json!({ "id": id, "ok": true, "result": result })),
        Err(Failure { kind, text }) => {
            say(&json!({ "id": id, "ok": false, "error": text, "kind": kind }));
        }
    }
}

fn say(message: &Value) {
    let mut stdout = std::io::stdout().lock();
    // If the controller is gone, stdin ends too.
    let _ = writeln!(stdout, "{message}").and_then(|()| stdout.flush());
}
