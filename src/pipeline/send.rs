//! Hands a delivery's records to the deliverer, under a span if the trace is sampled.

use super::{Pipeline, reason};
use crate::deliver::{DeliverError, OnRefusal, Receipt};
use crate::delivery::Deadline;
use crate::observe::traces::{Outgoing, SendSpanEnd, Trace};
use crate::outcome::Reason;
use crate::record::Record;

impl Pipeline {
    pub(super) async fn send(
        &self,
        records: Vec<Record>,
        last: OnRefusal,
        deadline: Deadline,
        trace: &mut Trace,
    ) -> Result<Receipt, DeliverError> {
        let Some(sending) = trace.send(&outgoing(&records)) else {
            return self.deliverer.deliver(records, last, deadline).await;
        };
        // The spool stores the span too, since its rows are these records.
        let traceparent = sending.traceparent();
        let records = records.into_iter().map(|record| record.traced(&traceparent)).collect();
        let result = self.deliverer.deliver(records, last, deadline).await;
        sending.end(match &result {
            Ok(Receipt::Published(ack)) => SendSpanEnd::Published(ack.partition, ack.offset),
            Ok(Receipt::Spooled) => SendSpanEnd::Spooled,
            Err(DeliverError::Refused(_)) => SendSpanEnd::Failed(Reason::KafkaRefused),
            Err(undelivered) => SendSpanEnd::Failed(reason(undelivered)),
        });
        result
    }
}

fn outgoing(records: &[Record]) -> Outgoing<'_> {
    let topic = records.first().map(Record::topic);
    Outgoing {
        topic: topic.filter(|topic| records.iter().all(|record| record.topic() == *topic)),
        count: records.len(),
    }
}
