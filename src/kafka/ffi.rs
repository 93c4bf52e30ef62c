//! Admin calls that librdkafka has and rdkafka does not wrap: the one place where `unsafe` is allowed.
//!
//! IncrementalAlterConfigs (KIP-339) is why: the legacy AlterConfigs, which rdkafka has, resets every
//! key that it is not given.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

/// What librdkafka may take over its own bound before it reports.
const GRACE: Duration = Duration::from_secs(2);

/// Settings of one topic, each with the value it is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// The topic.
    pub topic: String,
    /// Name and value.
    pub settings: Vec<(String, String)>,
}

/// Sets the settings, and no other: the topics that were refused, with the broker's code and words.
/// With `only_ask` nothing is changed. Blocks, for `timeout` and a little more at most.
pub(super) fn alter(
    client: &Client<DefaultClientContext>,
    wished: &[Alteration],
    only_ask: bool,
    timeout: Duration,
) -> anyhow::Result<Vec<(String, Code, String)>> {
    let resources: Vec<_> = wished.iter().map(resource).collect::<anyhow::Result<_>>()?;
    let options = options(client, only_ask, timeout)?;
    // SAFETY: the client is alive as long as it is borrowed.
    let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Owned::new(queue, rd::rd_kafka_queue_destroy)?;
    let mut pointers: Vec<_> = resources.iter().map(Owned::ptr).collect();
    // SAFETY: all pointers are valid during the call; librdkafka copies resources and options, and
    // keeps a reference to the queue of its own.
    unsafe {
        rd::rd_kafka_IncrementalAlterConfigs(
            client.native_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            options.ptr(),
            queue.ptr(),
        );
    }
    // SAFETY: the queue is alive; the event, if one comes, is ours to destroy.
    let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), milliseconds(timeout + GRACE)) };
    let event = Owned::new(event, rd::rd_kafka_event_destroy).context("no Kafka broker answers")?;
    refused(&event)
}

/// What an event of [`alter`] says of each topic.
fn refused(event: &Owned<rd::rd_kafka_event_t>) -> anyhow::Result<Vec<(String, Code, String)>> {
    // SAFETY: the event is alive; its text lives as long.
    let (code, text) = unsafe {
        (rd::rd_kafka_event_error(event.ptr()), owned(rd::rd_kafka_event_error_string(event.ptr())))
    };
    let code = Code::from(code);
    anyhow::ensure!(code == Code::NoError, "the topics' configuration cannot be altered: {text}");
    let mut count = 0;
    // SAFETY: the event is alive, and `count` is written. Of an event of another kind it is null.
    let resources = unsafe {
        let result = rd::rd_kafka_event_IncrementalAlterConfigs_result(event.ptr());
        anyhow::ensure!(!result.is_null(), "librdkafka answers something else than was asked");
        rd::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count)
    };
    if resources.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: librdkafka gives so many pointers, alive as long as the event.
    let resources = unsafe { slice::from_raw_parts(resources, count) };
    let each = resources.iter().map(|resource| {
        // SAFETY: each resource is alive as long as the event, and so are its texts.
        unsafe {
            let name = owned(rd::rd_kafka_ConfigResource_name(*resource));
            let why = owned(rd::rd_kafka_ConfigResource_error_string(*resource));
            (name, Code::from(rd::rd_kafka_ConfigResource_error(*resource)), why)
        }
    });
    Ok(each.filter(|(_, code, _)| *code != Code::NoError).collect())
}

fn resource(wished: &Alteration) -> anyhow::Result<Owned<rd::rd_kafka_ConfigResource_t>> {
    let topic = CString::new(wished.topic.as_str())?;
    // SAFETY: the name ends with a zero and is copied.
    let resource = unsafe {
        rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr())
    };
    let resource = Owned::new(resource, rd::rd_kafka_ConfigResource_destroy)?;
    for (name, value) in &wished.settings {
        let (name, value) = (CString::new(name.as_str())?, CString::new(value.as_str())?);
        // SAFETY: the resource is alive; name and value end with a zero and are copied.
        let error = unsafe {
            rd::rd_kafka_ConfigResource_add_incremental_config(
                resource.ptr(),
                name.as_ptr(),
                rd::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
                value.as_ptr(),
            )
        };
        if !error.is_null() {
            let error = Owned::new(error, rd::rd_kafka_error_destroy)?;
            // SAFETY: the error is alive, and its text as long.
            let text = unsafe { owned(rd::rd_kafka_error_string(error.ptr())) };
            anyhow::bail!("librdkafka refuses a setting of {}: {text}", wished.topic);
        }
    }
    Ok(resource)
}

fn options(
    client: &Client<DefaultClientContext>,
    only_ask: bool,
    timeout: Duration,
) -> anyhow::Result<Owned<rd::rd_kafka_AdminOptions_t>> {
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    // SAFETY: the client is alive as long as it is borrowed.
    let options = unsafe { rd::rd_kafka_AdminOptions_new(client.native_ptr(), operation) };
    let options = Owned::new(options, rd::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: the options are alive; a null text of length 0 is not written to.
    let codes = unsafe {
        let (none, bound) = (ptr::null_mut(), milliseconds(timeout));
        [
            rd::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), bound, none, 0),
            rd::rd_kafka_AdminOptions_set_validate_only(options.ptr(), only_ask.into(), none, 0),
        ]
    };
    let set = codes.into_iter().all(|code| Code::from(code) == Code::NoError);
    anyhow::ensure!(set, "librdkafka refuses the options of IncrementalAlterConfigs");
    Ok(options)
}

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
