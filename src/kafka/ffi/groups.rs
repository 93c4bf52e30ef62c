//! Consumer groups: which there are, and what they have committed.
//!
//! Decision: ListConsumerGroups and ListConsumerGroupOffsets, since they know classic and KIP-848 groups
//! alike. What rdkafka wraps does not: `fetch_group_list` asks by DescribeGroups, to which each KIP-848 group
//! is dead, and `committed_offsets` needs a client of the group's own name for each group.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{OTHER, Owned, array, ask, fault, options, owned};

/// A consumer group, in Kafka's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Stable`, `Empty`, `PreparingRebalance`, ...; `Unknown` for what librdkafka has no word for, as while
    /// a KIP-848 group assigns partitions anew.
    pub state: String,
    /// Its protocol: `Classic`, or `Consumer` (KIP-848); `Unknown` where the brokers are older than that.
    pub protocol: String,
}

/// What a group has committed, by topic and partition; or why nobody knows.
pub(in crate::kafka) type Committed = Result<BTreeMap<(String, i32), i64>, Code>;

/// The groups that we may see, by name. Blocks, for `timeout` and a little more at most.
///
/// # Errors
/// When not every broker answers: each knows its own groups only, so that some would seem deleted.
pub(in crate::kafka) fn groups(
    client: &Client<DefaultClientContext>,
    timeout: Duration,
) -> anyhow::Result<BTreeMap<String, GroupDescription>> {
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
    let options = options(client, operation, timeout)?;
    let event = ask(client, timeout, |client, queue| {
        // SAFETY: all pointers are valid during the call; librdkafka copies the options, and keeps a
        // reference to the queue of its own.
        unsafe { rd::rd_kafka_ListConsumerGroups(client, options.ptr(), queue) }
    })?;
    if let Some((_, text)) = fault(&event) {
        anyhow::bail!("the consumer groups cannot be listed: {text}");
    }
    let (mut count, mut failures) = (0, 0);
    // SAFETY: the event is alive, and both numbers are written. librdkafka gives so many pointers, alive as
    // long as the event.
    let (listed, errors) = unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroups_result(event.ptr());
        anyhow::ensure!(!result.is_null(), OTHER);
        let listed = rd::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut count);
        let errors = rd::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut failures);
        (array(listed, count), array(errors, failures))
    };
    if let Some(error) = errors.first() {
        // SAFETY: the error is alive as long as the event, and so is its text.
        let text = unsafe { owned(rd::rd_kafka_error_string(*error)) };
        anyhow::bail!("not every broker lists its consumer groups: {text}");
    }
    let group = |group: &*const rd::rd_kafka_ConsumerGroupListing_t| {
        // SAFETY: each group is alive as long as the event, and so is its name; those of states and
        // protocols are constants.
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

/// What the group has committed, for whichever topics; of one that does not exist, nothing. As it stands,
/// also while a transaction is about to change it. Blocks, for `timeout` and a little more at most.
///
/// Only a consumer may ask: where the coordinator has moved, or is not there yet, librdkafka tells the client's
/// own group of it, and an admin client has none: the process ends with a segmentation fault
/// (<https://github.com/confluentinc/librdkafka/issues/5040>; seen with 2.12).
///
/// # Errors
/// When nobody answers.
pub(in crate::kafka) fn committed<C: ConsumerContext>(
    consumer: &StreamConsumer<C>,
    group: &str,
    timeout: Duration,
) -> anyhow::Result<Committed> {
    let client = consumer.client();
    let name = CString::new(group)?;
    // SAFETY: the name ends with a zero and is copied; null asks for all partitions.
    let wanted = unsafe { rd::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null()) };
    let wanted = Owned::new(wanted, rd::rd_kafka_ListConsumerGroupOffsets_destroy)?;
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let options = options(client, operation, timeout)?;
    let event = ask(client, timeout, |client, queue| {
        // SAFETY: all pointers are valid during the call; librdkafka copies the group and the options, and
        // keeps a reference to the queue of its own.
        unsafe {
            let mut wanted = wanted.ptr();
            rd::rd_kafka_ListConsumerGroupOffsets(client, &raw mut wanted, 1, options.ptr(), queue);
        }
    })?;
    match fault(&event) {
        // librdkafka's own codes are negative: nobody has answered.
        Some((code, text)) if (code as i32) < 0 => {
            anyhow::bail!("the offsets of the group {group} cannot be read: {text}")
        }
        Some((code, _)) => return Ok(Err(code)),
        None => {}
    }
    let mut count = 0;
    // SAFETY: the event is alive, and `count` is written. librdkafka gives so many pointers, alive as long
    // as the event.
    let answers = unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event.ptr());
        anyhow::ensure!(!result.is_null(), OTHER);
        array(rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count), count)
    };
    let mut all = BTreeMap::new();
    for answer in answers {
        // SAFETY: the list is null, or alive as long as the event with so many partitions, each with its
        // topic's name.
        unsafe {
            let Some(list) = rd::rd_kafka_group_result_partitions(*answer).as_ref() else { continue };
            for place in array(list.elems.cast_const(), usize::try_from(list.cnt).unwrap_or_default()) {
                let code = Code::from(place.err);
                if code != Code::NoError {
                    return Ok(Err(code));
                }
                // Kafka says -1 where nothing is committed.
                if place.offset >= 0 {
                    all.insert((owned(place.topic.cast_const()), place.partition), place.offset);
                }
            }
        }
    }
    Ok(Ok(all))
}
