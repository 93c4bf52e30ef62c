//! Why a call of the registry failed.

use std::error::Error;
use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::client::{AnswerError, Redirect};

/// The limit of the registry's message that is shown, in characters.
const MAX_MESSAGE: usize = 500;

/// Why a call of the registry failed. Without the reason of a source, which
/// [`ErrorChain`](crate::observe::error_chain::ErrorChain) adds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file of certificates or keys cannot be used.
    #[error("{setting}: {why}")]
    Certificates {
        /// The setting that names the file.
        setting: &'static str,
        /// Why.
        why: String,
    },
    /// The HTTP client cannot be created.
    #[error("the registry's client")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing listens at the URL, or no answer arrives in time.
    #[error("the registry does not answer")]
    NoAnswer(#[source] AnswerError),
    /// The URL redirects, which no client follows.
    #[error("the registry is elsewhere; set [registry] url to {url}")]
    Elsewhere {
        /// The URL to set.
        url: String,
        /// The redirect.
        #[source]
        redirect: Redirect,
    },
    /// The answer is not complete, or not of the expected form.
    #[error("the registry's answer to {call} is not understood")]
    NotUnderstood {
        /// The method and the path.
        call: String,
        /// Why.
        #[source]
        cause: AnswerError,
    },
    /// The registry, or a proxy in front of it, answers with an error.
    #[error("{what}")]
    Refused {
        /// What the registry did not do, as a sentence.
        what: String,
        /// Its answer.
        #[source]
        refusal: Refusal,
    },
    /// The answer has the expected form but cannot be right; the text is a sentence.
    #[error("{0}")]
    Implausible(String),
    /// The local schema is not valid; the text is a sentence.
    #[error("{0}")]
    Schema(String),
}

impl RegistryError {
    pub(super) fn client(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Client(cause.into())
    }

    /// Use with `map_err`.
    pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(Refusal) -> Self {
        move |refusal| Self::Refused { what: what.into(), refusal }
    }

    /// Whether the registry has answered, so that the error may concern this subject alone: the call for another subject
    /// may succeed. After any other error it will do no better.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Implausible(_) | Self::Schema(_) => true,
            Self::NotUnderstood { cause, .. } => matches!(cause, AnswerError::Unexpected { .. }),
            Self::Certificates { .. } | Self::Client(_) | Self::NoAnswer(_) | Self::Elsewhere { .. } => false,
        }
    }
}

/// An answer with an error status.
#[derive(Debug)]
pub struct Refusal {
    pub(in crate::schema) status: StatusCode,
    /// Confluent's code and message. Without them, the answer may be from something else than the registry.
    pub(super) words: Option<Words>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Words {
    error_code: u32,
    message: String,
}

impl Refusal {
    pub(super) fn is(&self, code: u32) -> bool {
        self.words.as_ref().is_some_and(|words| words.error_code == code)
    }

    /// Whether the registry itself reports that the resource does not exist: a proxy in front of an unavailable registry
    /// may answer 404, too.
    pub(in crate::schema) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.words.is_some()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Words { error_code, message }) = &self.words else {
            return write!(f, "it answered {}", self.status);
        };
        let message: String = message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        write!(f, "{message} (code {error_code})")
    }
}

impl Error for Refusal {}
