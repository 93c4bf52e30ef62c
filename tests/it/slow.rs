//! Clients that connect all at once, and clients that never read. `tests/hostile/` has thousands of slow ones.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Setup};

#[tokio::test]
async fn the_accept_queue_holds_a_burst_of_connections() {
    let http = "max_connections = 1\nhead_timeout = \"60s\"";
    let service = Setup { http: http.into(), ..Setup::new("datagrid") }.start().await;
    // Only one connection is allowed, so they arrive faster than they are served. If the accept queue is full, the
    // kernel drops packets, and the client retries after 1, 3 and 7 s.
    let mut held = Vec::new();
    let all = tokio::time::timeout(PATIENCE, async {
        while held.len() < 1_000 {
            held.push(TcpStream::connect(service.hooks()).await.unwrap());
        }
    });
    let all = all.await;
    assert!(all.is_ok(), "{} of 1000 were connected within {PATIENCE:?}", held.len());
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_disconnected() {
    let setup = Setup { http: "head_timeout = \"1s\"".into(), ..Setup::new("datagrid") };
    let service = setup.start().await;
    let mut stream = TcpStream::connect(service.hooks()).await.unwrap();
    let many = "GET /hooks/x HTTP/1.1\r\nhost: t\r\n\r\n".repeat(1_000);
    // Writes until the answers fill every buffer, and then until the server gives up on the client.
    let written = tokio::time::timeout(PATIENCE, async {
        loop {
            stream.write_all(many.as_bytes()).await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    });
    let end = written.await.expect("the end of the connection");
    assert!(end.is_err());
}
