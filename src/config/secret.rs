//! Secrets by reference, redacted everywhere.

/// Where a secret stands.
#[derive(Debug, Clone, serde::Deserialize)]
pub enum SecretRef {}

/// A named secret.
#[derive(Clone)]
pub struct Secret {}
