//! A TCP forwarder in front of a server, which can cut, hang or delay its connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How bytes are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes are forwarded.
    Pass,
    /// Connections are closed immediately, including new ones.
    Cut,
    /// Connections stay open, and no byte is forwarded.
    Hang,
    /// Each chunk is delayed by this time.
    Delay(Duration),
}

/// The forwarder; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, whether or not anything listens there yet.
    pub async fn start(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                if *modes.borrow() != Mode::Cut {
                    tokio::spawn(forward(client, target, modes.clone()));
                }
            }
        });
        Ok(Self { address, mode, task })
    }

    /// Sets the mode from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

async fn forward(client: TcpStream, target: u16, mut modes: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (up, down) =
        (pump(from_client, to_server, modes.clone()), pump(from_server, to_client, modes.clone()));
    tokio::select! {
        // Kafka's clients close both directions together, so the end of one ends the connection.
        () = up => {}
        () = down => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: watch::Receiver<Mode>) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        let Ok(mode) = modes.wait_for(|mode| *mode != Mode::Hang).await.map(|mode| *mode) else { return };
        if let Mode::Delay(time) = mode {
            tokio::time::sleep(time).await; // the fault
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
