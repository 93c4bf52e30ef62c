//! hookstream: signed webhooks in, Avro events in Kafka out.
//!
//! # The path of a delivery
//!
//! ```text
//! POST /hooks/{source}
//!   http/ingest     head and body within their limits     404 405 408 413
//!   verify          signature over the bytes -> Verified  401
//!   pipeline        a slot for a verified delivery        503
//!   decide          handshake, records or dead letter
//!   envelope        id, type, time, key      -> Event     dead letter
//!   schema/encode   the type's Avro schema   -> Record    dead letter
//!   deliver         Kafka, else the spool    -> Receipt   503
//!   http/response   Receipt or Fault         -> status
//! ```
//!
//! # The map
//!
//! The lines below are in import order: a room uses only rooms listed below it, and no files use each other in a circle.
//! `tests/it/layout.rs` checks every path for that.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::disallowed_methods))]
#![warn(clippy::mod_module_files)]

pub mod cli;
pub mod dev;
pub mod app;
pub mod load;
pub mod http;
pub mod pipeline;
pub mod decide;
pub mod provision;
pub mod sources;
pub mod deliver;
pub mod kafka;
pub mod spool;
pub mod record;
pub mod schema;
pub mod envelope;
pub mod verify;
pub mod delivery;
pub mod json;
pub mod observe;
pub mod outcome;
pub mod config;
pub mod client;
pub mod names;
pub mod quota;
pub mod files;
pub mod sync;
pub mod failpoints;
