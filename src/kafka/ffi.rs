//! Admin calls of librdkafka that rdkafka does not wrap: the only module in which `unsafe` is allowed.
//!
//! `alter` contains IncrementalAlterConfigs, `groups` the consumer group calls. This file contains what they
//! share: one call with its event, and ownership of librdkafka's objects.
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

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::ClusterError;

/// The time that librdkafka may exceed its own time limit before it reports.
const GRACE: Duration = Duration::from_secs(2);

/// The options of an admin call.
type Options = Owned<rd::rd_kafka_AdminOptions_t>;

/// The result event of an admin call.
type EventHandle = Owned<rd::rd_kafka_event_t>;

/// Creates the options of one call, with its time limit.
fn options<C: ClientContext>(
    client: &Client<C>,
    operation: rd::rd_kafka_admin_op_t,
    timeout: Duration,
) -> Result<Options, ClusterError> {
    // SAFETY: the client is alive as long as it is borrowed.
    let options = unsafe { rd::rd_kafka_AdminOptions_new(client.native_ptr(), operation) };
    let options = Owned::new(options, rd::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: the options are alive; a null text of length 0 is not written to.
    let code = unsafe {
        let (none, bound) = (ptr::null_mut(), milliseconds(timeout));
        rd::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), bound, none, 0)
    };
    match Code::from(code) {
        Code::NoError => Ok(options),
        _ => Err(ClusterError::Library("refuses the time limit of an admin call")),
    }
}

/// Makes one call, which puts its event into the given queue, and waits for that event. Blocks for little
/// more than `timeout` at most.
fn call_admin<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
    call: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_queue_t),
) -> Result<EventHandle, ClusterError> {
    // SAFETY: the client is alive as long as it is borrowed.
    let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Owned::new(queue, rd::rd_kafka_queue_destroy)?;
    call(client.native_ptr(), queue.ptr());
    // SAFETY: the queue is alive; the caller owns the event, if one arrives.
    let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), milliseconds(timeout + GRACE)) };
    Owned::new(event, rd::rd_kafka_event_destroy).map_err(|_| ClusterError::NoBroker(None))
}

/// The errors that librdkafka has put into the client's main queue since the last call. rdkafka polls that queue for
/// producers and consumers only: of an admin client nobody would see the errors, and they would stay in memory together
/// with its log lines.
pub(super) fn reported<C: ClientContext>(client: &Client<C>) -> Result<Vec<(Code, String)>, ClusterError> {
    // SAFETY: the client is alive as long as it is borrowed; the caller owns the reference to the queue.
    let queue = unsafe { rd::rd_kafka_queue_get_main(client.native_ptr()) };
    let queue = Owned::new(queue, rd::rd_kafka_queue_destroy)?;
    let mut errors = Vec::new();
    loop {
        // SAFETY: the queue is alive; the caller owns the event, if there is one. 0 does not wait.
        let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), 0) };
        let Ok(event) = EventHandle::new(event, rd::rd_kafka_event_destroy) else { return Ok(errors) };
        // SAFETY: the event is alive.
        if unsafe { rd::rd_kafka_event_type(event.ptr()) } == rd::RD_KAFKA_EVENT_ERROR {
            errors.extend(fault(&event));
        }
    }
}

/// Why the complete call failed, if it did, in librdkafka's words.
fn fault(event: &EventHandle) -> Option<(Code, String)> {
    // SAFETY: the event is alive; its text lives as long as the event.
    let (code, text) = unsafe {
        (rd::rd_kafka_event_error(event.ptr()), owned(rd::rd_kafka_event_error_string(event.ptr())))
    };
    let code = Code::from(code);
    (code != Code::NoError).then_some((code, text))
}

/// The error for an event of another type, which has no result.
fn unexpected() -> ClusterError {
    ClusterError::Library("returned an event of an unexpected type")
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Copies a text of librdkafka; returns an empty string for null.
///
/// # Safety
/// `text` is null, or is terminated by NUL and alive during the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Converts librdkafka's pair of pointer and count to a slice, which is empty for null.
///
/// # Safety
/// `first` is null, or points to `count` values that live unchanged for `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller guarantees it.
    unsafe { slice::from_raw_parts(first, count) }
}

/// An owned object of librdkafka; the pointer is never null.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, ClusterError> {
        let pointer = NonNull::new(pointer).ok_or(ClusterError::Library("returned a null pointer"))?;
        Ok(Self { pointer, destroy })
    }

    fn ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the constructor that matches `destroy`, and is dropped once.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}
