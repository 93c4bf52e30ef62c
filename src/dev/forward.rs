//! A TCP forwarder: gives the embedded Kafka, whose port is random, a well-known address.
//!
//! Clients follow the broker addresses of Kafka's metadata, so only their first connection comes
//! through here. That is enough: the broker's own port is on the same loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 256;

/// Binds the wished address; where another process has it, a free port of the same IP. The flag
/// says whether it was taken.
///
/// # Errors
/// What binding says, except that the address is in use.
pub async fn bind_or_free(wished: SocketAddr) -> io::Result<(TcpListener, bool)> {
    match TcpListener::bind(wished).await {
        Ok(listener) => Ok((listener, false)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok((TcpListener::bind(SocketAddr::new(wished.ip(), 0)).await?, true))
        }
        Err(error) => Err(error),
    }
}

/// A running forwarder. Dropping it ends it and each of its connections.
#[derive(Debug)]
pub struct Forwarder(JoinHandle<()>);

impl Forwarder {
    /// Forwards each connection of `listener` to `target`. Call it inside a tokio runtime.
    pub fn spawn(listener: TcpListener, target: SocketAddr) -> Self {
        Self(tokio::spawn(forward(listener, target)))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn forward(listener: TcpListener, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Owned here: when this task is aborted, its connections go with it.
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(async move {
                    let _place = place;
                    // A broken connection is the two ends' own business; they reconnect.
                    let _ = connect(client, target).await;
                });
            }
            // Out of file handles, most likely: the next try must not spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connect(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut broker = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut broker).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::util::Timeout;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::kafka::embedded::Embedded;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn a_taken_address_is_replaced_by_a_free_port_of_the_same_ip() {
        let (first, taken) = bind_or_free(LOOPBACK).await.unwrap();
        assert!(!taken);
        let wished = first.local_addr().unwrap();
        let (second, taken) = bind_or_free(wished).await.unwrap();
        assert!(taken);
        assert_eq!(second.local_addr().unwrap().ip(), wished.ip());
        assert_ne!(second.local_addr().unwrap().port(), wished.port());
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error() {
        assert!(bind_or_free("192.0.2.1:9092".parse().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_producer_reaches_the_embedded_kafka_through_it() {
        let kafka = Embedded::start().unwrap();
        let (listener, _) = bind_or_free(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _forwarder = Forwarder::spawn(listener, kafka.bootstrap_servers().parse().unwrap());
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", address.to_string())
            .set("message.timeout.ms", "10000")
            .create()
            .unwrap();
        let record = FutureRecord::to("datagrid.test").key("evt_1").payload("one");
        producer.send(record, Timeout::After(Duration::ZERO)).await.unwrap();
    }

    #[tokio::test]
    async fn dropping_it_ends_its_connections_and_its_port() {
        let (target, _) = bind_or_free(LOOPBACK).await.unwrap();
        let (listener, _) = bind_or_free(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let forwarder = Forwarder::spawn(listener, target.local_addr().unwrap());

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut broker, _) = target.accept().await.unwrap();
        let mut heard = [0; 5];
        broker.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");

        drop(forwarder);
        let end = tokio::time::timeout(Duration::from_secs(5), client.read(&mut heard)).await;
        assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
        let again = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
        assert!(again.unwrap().is_err());
    }
}
