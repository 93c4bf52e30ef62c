//! Binds the two ports, before anything else starts.

use std::fmt::Display;
use std::io;
use std::net::ToSocketAddrs as _;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::config::{Config, ConfigErrors};

/// The two bound ports.
pub struct Listeners {
    /// The port that providers call.
    pub hooks: TcpListener,
    /// The operator's port.
    pub admin: TcpListener,
}

/// Binds only the operator's port.
///
/// # Errors
/// If the address is in use, or not one of this machine's.
pub async fn bind_admin(config: &Config) -> anyhow::Result<TcpListener> {
    bind("admin.listen", &config.admin.listen).await
}

impl Listeners {
    /// Binds both ports of the configuration.
    ///
    /// # Errors
    /// If an address is in use, or not one of this machine's.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { hooks: bind("http.listen", &config.http.listen).await?, admin: bind_admin(config).await? })
    }
}

/// Connections that may wait to be accepted, also bounded by the kernel (`net.core.somaxconn`, 4096). tokio asks for
/// 128, which many clients at once fill within milliseconds; a client that finds the queue full gets no answer, and
/// tries again only after a second.
const BACKLOG: i32 = 4096;

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await.and_then(|listener| {
        // Listening a second time changes only the backlog.
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    bound.map_err(|error| anyhow::anyhow!("{key}: {}", cannot_listen(key, address, error)))
}

fn cannot_listen(key: &str, address: &str, error: impl Display) -> String {
    format!("cannot listen on {address}: {error}; choose another with -X {key}=ADDRESS:PORT")
}

/// Adds a problem for each address that the service could not listen on. An address in use is none: the service may be
/// running. The sockets are bound but never listen, so no client reaches them.
pub(super) fn check(config: &Config, problems: &mut ConfigErrors) {
    for (key, address) in [("http.listen", &config.http.listen), ("admin.listen", &config.admin.listen)] {
        match try_bind(address) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                problems.add(key, cannot_listen(key, address, error));
            }
            _ => {}
        }
    }
}

/// Binds to the first of the addresses that can be bound, as [`TcpListener::bind`] does.
fn try_bind(address: &str) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
