//! An error with its causes, for log and health.

use std::error::Error;
use std::{fmt, iter};

/// The error and all of its sources.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// Shows an error and all of its sources, separated by `: `, as the commands show theirs.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = causes(self.0);
        all.next().map_or(Ok(()), |error| write!(f, "{error}"))?;
        all.try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_follows_the_error_as_in_the_commands() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Link(&'static str, #[source] Option<Box<Link>>);

        let error = Link("a", Some(Box::new(Link("b", Some(Box::new(Link("c", None)))))));
        assert_eq!(ErrorChain(&error).to_string(), "a: b: c");
        assert_eq!(ErrorChain(&error).to_string(), format!("{:#}", anyhow::Error::new(error)));
    }
}
