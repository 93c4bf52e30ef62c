//! The ports, bound before anything else is started.

use anyhow::Context as _;
use socket2::SockRef;
use tokio::net::TcpListener;

use crate::config::Config;

/// The two ports, bound.
pub struct Listeners {
    /// Where providers call.
    pub hooks: TcpListener,
    /// The operator's.
    pub admin: TcpListener,
}

/// Binds the operator's port alone.
///
/// # Errors
/// When the address is taken, or not ours.
pub async fn bind_admin(config: &Config) -> anyhow::Result<TcpListener> {
    bind("admin.listen", &config.admin.listen).await
}

impl Listeners {
    /// Binds what the configuration says.
    ///
    /// # Errors
    /// When an address is taken, or not ours.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { hooks: bind("http.listen", &config.http.listen).await?, admin: bind_admin(config).await? })
    }
}

/// Connections that may wait to be accepted; the kernel's own bound (`net.core.somaxconn`, 4096)
/// counts as well. tokio asks for 128, which a crowd fills within milliseconds: a client that finds
/// no room is not told, and tries again only after a second.
const BACKLOG: i32 = 4096;

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await.and_then(|listener| {
        // Listening a second time changes the number, and nothing else.
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    bound.with_context(|| {
        format!("cannot listen on {address} ({key}): choose another with -X {key}=ADDRESS:PORT")
    })
}
