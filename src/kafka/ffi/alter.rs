//! IncrementalAlterConfigs (KIP-339). rdkafka only has the legacy AlterConfigs, which resets every key that
//! it is not given.

use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{EventHandle, Options, Owned, array, call_admin, fault, owned, unexpected};
use crate::kafka::ClusterError;

/// New values for settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    pub topic: String,
    /// Names and values.
    pub settings: Vec<(String, String)>,
}

/// Sets these settings and no others. Returns the topics that were refused, with the broker's code and
/// message. With `validate_only`, nothing changes. Blocks for little more than `timeout` at most.
pub(in crate::kafka) fn alter(
    client: &Client<DefaultClientContext>,
    alterations: &[Alteration],
    validate_only: bool,
    timeout: Duration,
) -> Result<Vec<(String, Code, String)>, ClusterError> {
    let resources: Vec<_> = alterations.iter().map(resource).collect::<Result<_, ClusterError>>()?;
    let options = options(client, validate_only, timeout)?;
    let mut pointers: Vec<_> = resources.iter().map(Owned::ptr).collect();
    let event = call_admin(client, timeout, |client, queue| {
        let (first, count) = (pointers.as_mut_ptr(), pointers.len());
        // SAFETY: all pointers are valid during the call; librdkafka copies resources and options, and holds its
        // own reference to the queue.
        unsafe { rd::rd_kafka_IncrementalAlterConfigs(client, first, count, options.ptr(), queue) }
    })?;
    if let Some((_, text)) = fault(&event) {
        return Err(ClusterError::refused("the topics' configuration cannot be altered", text));
    }
    refused(&event)
}

/// The refused topics of an [`alter`] event.
fn refused(event: &EventHandle) -> Result<Vec<(String, Code, String)>, ClusterError> {
    let mut count = 0;
    // SAFETY: the event is alive, and `count` is written. librdkafka returns `count` pointers, which live as
    // long as the event.
    let resources = unsafe {
        let result = rd::rd_kafka_event_IncrementalAlterConfigs_result(event.ptr());
        if result.is_null() {
            return Err(unexpected());
        }
        array(rd::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count), count)
    };
    let each = resources.iter().map(|resource| {
        // SAFETY: each resource and its texts live as long as the event.
        unsafe {
            let name = owned(rd::rd_kafka_ConfigResource_name(*resource));
            let why = owned(rd::rd_kafka_ConfigResource_error_string(*resource));
            (name, Code::from(rd::rd_kafka_ConfigResource_error(*resource)), why)
        }
    });
    Ok(each.filter(|(_, code, _)| *code != Code::NoError).collect())
}

fn resource(alteration: &Alteration) -> Result<Owned<rd::rd_kafka_ConfigResource_t>, ClusterError> {
    let topic = CString::new(alteration.topic.as_str())?;
    // SAFETY: the name is terminated by NUL and is copied.
    let resource = unsafe {
        rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr())
    };
    let resource = Owned::new(resource, rd::rd_kafka_ConfigResource_destroy)?;
    for (name, value) in &alteration.settings {
        let (name, value) = (CString::new(name.as_str())?, CString::new(value.as_str())?);
        // SAFETY: the resource is alive; name and value are terminated by NUL and are copied.
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
            // SAFETY: the error is alive, and its text lives as long.
            let text = unsafe { owned(rd::rd_kafka_error_string(error.ptr())) };
            let what = format!("librdkafka refuses a setting of {}", alteration.topic);
            return Err(ClusterError::refused(what, text));
        }
    }
    Ok(resource)
}

fn options(
    client: &Client<DefaultClientContext>,
    validate_only: bool,
    timeout: Duration,
) -> Result<Options, ClusterError> {
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    let options = super::options(client, operation, timeout)?;
    // SAFETY: the options are alive; a null text of length 0 is not written to.
    let code = unsafe {
        rd::rd_kafka_AdminOptions_set_validate_only(options.ptr(), validate_only.into(), ptr::null_mut(), 0)
    };
    match Code::from(code) {
        Code::NoError => Ok(options),
        _ => Err(ClusterError::Library("refuses the options of IncrementalAlterConfigs")),
    }
}
