//! A TCP forwarder: gives the embedded Kafka, whose port is random, a well-known address.
//!
//! Clients follow the broker addresses in Kafka's metadata, so only their first connection uses the forwarder.
//! That is sufficient: the broker's own port is on the same loopback interface.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// The maximum of concurrent connections; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 256;

/// Binds the desired address or, if it is in use, a free port of the same IP. The flag is true if the address
/// was in use.
///
/// # Errors
/// Any bind error, except that the address is in use.
pub async fn bind_or_free(desired: SocketAddr) -> io::Result<(TcpListener, bool)> {
    match TcpListener::bind(desired).await {
        Ok(listener) => Ok((listener, false)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok((TcpListener::bind(SocketAddr::new(desired.ip(), 0)).await?, true))
        }
        Err(error) => Err(error),
    }
}

/// A running forwarder. Dropping it closes it and each of its connections.
#[derive(Debug)]
pub struct Forwarder(JoinHandle<()>);

impl Forwarder {
    /// Forwards each connection of `listener` to `target`. Requires a tokio runtime.
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
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Owned by this task, so that aborting the task closes its connections.
    let mut connections = JoinSet::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(async move {
                    let _permit = permit;
                    // Both ends notice a broken connection and reconnect.
                    let _ = connect(client, target).await;
                });
            }
            // Probably out of file descriptors: the loop must not spin.
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
        let desired = first.local_addr().unwrap();
        let (second, taken) = bind_or_free(desired).await.unwrap();
        assert!(taken);
        assert_eq!(second.local_addr().unwrap().ip(), desired.ip());
        assert_ne!(second.local_addr().unwrap().port(), desired.port());
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
    async fn dropping_it_closes_its_connections_and_its_port() {
        let (target, _) = bind_or_free(LOOPBACK).await.unwrap();
        let (listener, _) = bind_or_free(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let forwarder = Forwarder::spawn(listener, target.local_addr().unwrap());

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut broker, _) = target.accept().await.unwrap();
        let mut received = [0; 5];
        broker.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");

        drop(forwarder);
        let end = tokio::time::timeout(Duration::from_secs(5), client.read(&mut received)).await;
        assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
        let again = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
        assert!(again.unwrap().is_err());
    }
}
