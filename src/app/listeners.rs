//! Binds the two ports, before anything else starts.

use anyhow::Context as _;
use socket2::SockRef;
use tokio::net::TcpListener;

use crate::config::Config;

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
    bound.with_context(|| {
        format!("cannot listen on {address} ({key}): choose another with -X {key}=ADDRESS:PORT")
    })
}
