//! Lists consumer groups and reads their committed offsets.
//!
//! Decision: ListConsumerGroups and ListConsumerGroupOffsets, because both work with classic and with KIP-848
//! groups. rdkafka's wrappers do not: `fetch_group_list` uses DescribeGroups, which reports every KIP-848 group
//! as dead, and `committed_offsets` needs one client with the group's name for each group.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{Owned, array, call_admin, fault, options, owned, unexpected};
use crate::kafka::ClusterError;

/// A consumer group, in Kafka's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Stable`, `Empty`, `PreparingRebalance`, ...; `Unknown` for a state that librdkafka does not know, for
    /// example while a KIP-848 group reassigns partitions.
    pub state: String,
    /// The protocol: `Classic`, or `Consumer` (KIP-848); `Unknown` if the brokers are too old to report it.
    pub protocol: String,
}

/// A group's committed offsets by topic and partition, or the error code.
pub(in crate::kafka) type Committed = Result<BTreeMap<(String, i32), i64>, Code>;

/// The consumer groups that the user may see, by name. Blocks for little more than `timeout` at most.
///
/// # Errors
/// If one broker does not answer: each knows only its own groups, so some groups would seem deleted.
pub(in crate::kafka) fn groups(
    client: &Client<DefaultClientContext>,
    timeout: Duration,
) -> Result<BTreeMap<String, GroupDescription>, ClusterError> {
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
    let options = options(client, operation, timeout)?;
    let event = call_admin(client, timeout, |client, queue| {
        // SAFETY: all pointers are valid during the call; librdkafka copies the options, and holds its own
        // reference to the queue.
        unsafe { rd::rd_kafka_ListConsumerGroups(client, options.ptr(), queue) }
    })?;
    if let Some((_, text)) = fault(&event) {
        return Err(ClusterError::refused("the consumer groups cannot be listed", text));
    }
    let (mut count, mut failures) = (0, 0);
    // SAFETY: the event is alive, and both counts are written. librdkafka returns that many pointers, which
    // live as long as the event.
    let (listed, errors) = unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroups_result(event.ptr());
        if result.is_null() {
            return Err(unexpected());
        }
        let listed = rd::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut count);
        let errors = rd::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut failures);
        (array(listed, count), array(errors, failures))
    };
    if let Some(error) = errors.first() {
        // SAFETY: the error and its text live as long as the event.
        let text = unsafe { owned(rd::rd_kafka_error_string(*error)) };
        return Err(ClusterError::refused("not every broker lists its consumer groups", text));
    }
    let group = |group: &*const rd::rd_kafka_ConsumerGroupListing_t| {
        // SAFETY: each group and its name live as long as the event; the names of states and protocols are
        // constants.
        unsafe {
            let name = owned(rd::rd_kafka_ConsumerGroupListing_group_id(*group));
            let state = rd::rd_kafka_ConsumerGroupListing_state(*group);
            let protocol = rd::rd_kafka_ConsumerGroupListing_type(*group);
            let state = owned(rd::rd_kafka_consumer_group_state_name(state));
            let protocol = owned(rd::rd_kafka_consumer_group_type_name(protocol));
            (name, GroupDescription { state, protocol })
        }
    };
    Ok(listed.iter().map(group).collect())
}

/// The group's committed offsets on all topics, without those of deleted topics. The value is current, even
/// while a transaction is about to change it. Blocks for little more than `timeout` at most.
///
/// Requires a consumer client. If the coordinator has moved or does not exist yet, librdkafka notifies the
/// client's own group. An admin client has none, and the process ends with a segmentation fault
/// (<https://github.com/confluentinc/librdkafka/issues/5040>; seen with 2.12).
///
/// # Errors
/// If no broker answers.
pub(in crate::kafka) fn committed<C: ConsumerContext>(
    consumer: &StreamConsumer<C>,
    group: &str,
    timeout: Duration,
) -> Result<Committed, ClusterError> {
    let client = consumer.client();
    let name = CString::new(group)?;
    // SAFETY: the name is terminated by NUL and is copied; null requests all partitions.
    let wanted = unsafe { rd::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null()) };
    let wanted = Owned::new(wanted, rd::rd_kafka_ListConsumerGroupOffsets_destroy)?;
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let options = options(client, operation, timeout)?;
    let event = call_admin(client, timeout, |client, queue| {
        // SAFETY: all pointers are valid during the call; librdkafka copies the group and the options, and
        // holds its own reference to the queue.
        unsafe {
            let mut wanted = wanted.ptr();
            rd::rd_kafka_ListConsumerGroupOffsets(client, &raw mut wanted, 1, options.ptr(), queue);
        }
    })?;
    match fault(&event) {
        // librdkafka's own codes are negative: no broker has answered.
        Some((code, text)) if (code as i32) < 0 => {
            let what = format!("the offsets of the group {group} cannot be read");
            return Err(ClusterError::refused(what, text));
        }
        Some((code, _)) => return Ok(Err(code)),
        None => {}
    }
    let mut count = 0;
    // SAFETY: the event is alive, and `count` is written. librdkafka returns `count` pointers, which live as
    // long as the event.
    let answers = unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event.ptr());
        if result.is_null() {
            return Err(unexpected());
        }
        array(rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count), count)
    };
    let mut all = BTreeMap::new();
    for answer in answers {
        // SAFETY: the list is null, or lives as long as the event and has `cnt` partitions, each with its
        // topic's name.
        unsafe {
            let Some(list) = rd::rd_kafka_group_result_partitions(*answer).as_ref() else { continue };
            for entry in array(list.elems.cast_const(), usize::try_from(list.cnt).unwrap_or_default()) {
                let code = Code::from(entry.err);
                if code != Code::NoError {
                    return Ok(Err(code));
                }
                // The offset is -1 if nothing is committed.
                if entry.offset >= 0 {
                    all.insert((owned(entry.topic.cast_const()), entry.partition), entry.offset);
                }
            }
        }
    }
    Ok(Ok(all))
}
