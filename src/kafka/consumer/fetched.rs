//! An owned copy of a consumed record.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// A record as read from its topic. `Debug` shows no payload.
pub struct Fetched {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, if it has a timestamp.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// The headers in order; a name may occur several times.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The value; `None` in a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Fetched {
    /// The first header of this name, if its value is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl From<&BorrowedMessage<'_>> for Fetched {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }
}
