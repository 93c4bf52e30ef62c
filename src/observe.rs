//! Observability: log, metrics, traces, health and status.

pub mod clock;
pub mod drift;
pub mod error_chain;
pub mod health;
pub mod log;
pub mod metrics;
pub mod refusals;
pub mod status;
pub mod traces;
pub mod traffic;
pub mod metrics_upkeep;
pub mod window;
