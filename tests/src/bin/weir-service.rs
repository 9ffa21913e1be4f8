//! `weir-service`: a service instance of the demo and the tests, or a plain echo server.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use tests::service::Identity;
use tests::{echo, service};

/// A small server that says who it is.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Serve HTTP: /healthz, /whoami, /echo, /bytes/N, /slow?ms=N, /status/N, /websocket.
    Http {
        /// Address and port; may be given several times.
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// The service this is an instance of.
        #[arg(long)]
        service: String,
        /// The name of this instance.
        #[arg(long)]
        instance: String,
    },
    /// Echo over TCP and UDP, after a line with the instance's name.
    Echo {
        /// Address and port; may be given several times.
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// The name of this instance.
        #[arg(long)]
        instance: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut servers = JoinSet::new();
    match Arguments::parse().mode {
        Mode::Http {
            listen,
            service,
            instance,
        } => {
            for address in listen {
                let identity = Identity {
                    service: service.clone(),
                    instance: instance.clone(),
                };
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| busy(address))?;
                servers.spawn(service::serve(listener, identity));
            }
        }
        Mode::Echo { listen, instance } => {
            for address in listen {
                let (tcp, udp) = echo::bind(address).await.with_context(|| busy(address))?;
                servers.spawn(echo::serve(tcp, udp, instance.clone()));
            }
        }
    }
    servers.join_all().await;
    Ok(())
}

fn busy(address: SocketAddr) -> String {
    format!("cannot listen on {address}: does this host hold the address, and is the port free?")
}
