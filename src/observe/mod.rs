//! What others see of the service: log, metrics, health.

pub mod health;
pub mod log;
pub mod metrics;
