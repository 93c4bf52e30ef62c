//! Admin calls that librdkafka has and rdkafka does not wrap: the one place where `unsafe` is allowed.
//!
//! `alter` has IncrementalAlterConfigs, `groups` what there is to know of consumer groups. Here stands what
//! they share: one call and its event, and what of librdkafka's is ours to destroy.
#![allow(unsafe_code)]

mod alter;
mod groups;

pub use alter::Alteration;
pub(super) use alter::alter;
pub use groups::GroupDescription;
pub(super) use groups::{Committed, committed, groups};

use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

/// What librdkafka may take over its own bound before it reports.
const GRACE: Duration = Duration::from_secs(2);

/// What a call is made with.
type Options = Owned<rd::rd_kafka_AdminOptions_t>;

/// What librdkafka answers.
type Event = Owned<rd::rd_kafka_event_t>;

/// The options of one call, with its bound.
fn options<C: ClientContext>(
    client: &Client<C>,
    operation: rd::rd_kafka_admin_op_t,
    timeout: Duration,
) -> anyhow::Result<Options> {
    // SAFETY: the client is alive as long as it is borrowed.
    let options = unsafe { rd::rd_kafka_AdminOptions_new(client.native_ptr(), operation) };
    let options = Owned::new(options, rd::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: the options are alive; a null text of length 0 is not written to.
    let code = unsafe {
        let (none, bound) = (ptr::null_mut(), milliseconds(timeout));
        rd::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), bound, none, 0)
    };
    anyhow::ensure!(Code::from(code) == Code::NoError, "librdkafka refuses the bound of an admin call");
    Ok(options)
}

/// Makes one call, which puts its event into the queue that it is given, and waits for that. Blocks, for
/// `timeout` and a little more at most.
fn ask<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
    call: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_queue_t),
) -> anyhow::Result<Event> {
    // SAFETY: the client is alive as long as it is borrowed.
    let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Owned::new(queue, rd::rd_kafka_queue_destroy)?;
    call(client.native_ptr(), queue.ptr());
    // SAFETY: the queue is alive; the event, if one comes, is ours to destroy.
    let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), milliseconds(timeout + GRACE)) };
    Owned::new(event, rd::rd_kafka_event_destroy).context("no Kafka broker answers")
}

/// Why the whole call failed, if it did, in librdkafka's words.
fn fault(event: &Event) -> Option<(Code, String)> {
    // SAFETY: the event is alive; its text lives as long.
    let (code, text) = unsafe {
        (rd::rd_kafka_event_error(event.ptr()), owned(rd::rd_kafka_event_error_string(event.ptr())))
    };
    let code = Code::from(code);
    (code != Code::NoError).then_some((code, text))
}

/// Of an event of another kind there is no result.
const OTHER: &str = "librdkafka answers something else than was asked";

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A copy of librdkafka's text; empty for null.
///
/// # Safety
/// `text` is null, or ends with a zero and is alive during the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// What librdkafka gives as a pointer and a number; empty for null.
///
/// # Safety
/// `first` is null, or points to so many values that live, unchanged, as long as `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// Something of librdkafka's that is ours to destroy, and never null.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> anyhow::Result<Self> {
        let pointer = NonNull::new(pointer).context("librdkafka gives nothing")?;
        Ok(Self { pointer, destroy })
    }

    fn ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the constructor that belongs to `destroy`, and is dropped once.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}
