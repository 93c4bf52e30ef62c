//! Threads that end unasked.

use super::*;
use crate::observe::health::PartState;

const AT_ONCE: Duration = Duration::from_secs(5);

fn panics(spool: &Spool) {
    let run: Run = Box::new(|_, _| panic!("on purpose"));
    spool.shared.push_change(WriterCommand::Run { run }).unwrap();
}

fn one() -> Vec<Record> {
    vec![record("a", "k", b"x")]
}

fn ended(thread: &str) -> SpoolError {
    SpoolError::new(format!("the spool's {thread} thread has ended; restart hookstream"))
}

async fn at_once<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_ONCE, work).await.expect("an answer at once")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_fails_queued_and_later_requests_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store(one()).await.unwrap();
    let go = block(&spool);
    panics(&spool);
    let queued = tokio::spawn({
        let spool = spool.clone();
        async move { spool.store(one()).await }
    });
    while spool.shared.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let flushed = tokio::spawn({
        let spool = spool.clone();
        async move { spool.flush().await }
    });
    go.send(()).unwrap();
    assert_eq!(at_once(queued).await.unwrap(), Err(StoreError::Error(ended("writer"))));
    assert_eq!(at_once(flushed).await.unwrap(), Err(ended("writer")));
    at_once(eventually("the report", || spool.stats().ended.is_some())).await;
    assert_eq!(spool.stats().health(), (PartState::Down, ended("writer").to_string()));

    assert_eq!(at_once(spool.store(one())).await, Err(StoreError::Error(ended("writer"))));
    let rows = oldest(&spool, "a").await;
    assert_eq!(at_once(spool.park(rows[0].id, "why")).await, Err(ended("writer")));
    assert_eq!(at_once(spool.requeue(None)).await, Err(ended("writer")));
    spool.remove(&[rows[0].id]);
    drop(rows);
    assert!(oldest(&spool, "a").await.is_empty(), "a delivered row is not delivered again");
    spool.close(AT_ONCE).await.unwrap();
    drop(spool);
    let (again, opened) = open(dir.path());
    assert_eq!(
        (opened.live, keys(&oldest(&again, "a").await)),
        (1, vec!["k"]),
        "a restart has the stored row"
    );
}

#[tokio::test]
async fn a_reader_that_panics_fails_requests_and_stores_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store(one()).await.unwrap();
    let rows = oldest(&spool, "a").await;
    spool.reads.send(read::ReadRequest::Panic).unwrap();
    let error = at_once(spool.lease_oldest(&"a".into(), 1, 1)).await.unwrap_err();
    assert_eq!(error, ended("reader"));
    at_once(eventually("the report", || spool.stats().ended.is_some())).await;
    assert_eq!(spool.stats().health(), (PartState::Down, ended("reader").to_string()));
    assert_eq!(at_once(spool.store(one())).await, Err(StoreError::Error(ended("reader"))));
    // The writer still deletes what Kafka has acknowledged.
    spool.remove(&[rows[0].id]);
    at_once(spool.flush()).await.unwrap();
    assert_eq!(spool.stats().live, 0);
}

#[tokio::test]
async fn threads_that_end_with_the_spool_are_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.close(SOON).await.unwrap();
    assert_eq!(spool.stats().ended, None);
    assert_eq!(spool.store(one()).await, Err(StoreError::closed()));
}
