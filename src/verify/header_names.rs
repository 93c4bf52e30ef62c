//! The names that a header of the signature may have.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::config::ConfigErrors;
use crate::names;

/// The names of a header, in order of preference: the first that a request has counts, so that a provider may rename the
/// header. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderNames(Vec<HeaderName>);

impl HeaderNames {
    /// Parses the names. `None` after a problem under `key`, or if there is none.
    pub(super) fn compile(names: &[String], key: &str, problems: &mut ConfigErrors) -> Option<Self> {
        let names: Vec<_> = names.iter().map(|name| parse(name, key, problems)).collect();
        names.into_iter().collect::<Option<Vec<_>>>().filter(|names| !names.is_empty()).map(Self)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter()
    }

    /// The name that the provider prefers.
    pub(super) fn first(&self) -> Option<&HeaderName> {
        self.0.first()
    }

    /// The name that counts in a request; `None` if the request has none of them.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<&HeaderName> {
        self.0.iter().find(|name| headers.contains_key(*name))
    }
}

impl From<HeaderName> for HeaderNames {
    fn from(name: HeaderName) -> Self {
        Self(vec![name])
    }
}

impl fmt::Display for HeaderNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " or " })?;
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
}

/// One of hookstream's own headers could not be told from those that hookstream adds to a dead letter.
fn parse(name: &str, key: &str, problems: &mut ConfigErrors) -> Option<HeaderName> {
    match HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()) {
        Ok(name) if name.as_str().starts_with(names::HEADER_PREFIX) => {
            problems.add(key, "is one of hookstream's own headers; name the provider's");
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            problems.add(key, "is not a valid HTTP header name");
            None
        }
    }
}
