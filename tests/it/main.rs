//! Integration tests from HTTP to Kafka, with a real Kafka and a real registry.
//!
//! `./tests/run` starts both and passes their addresses in `HOOKSTREAM_TEST_*`; without these variables the tests fail.
//! Each test has its own source, and so its own topics. The in-memory Kafka is only for faults that the real one cannot
//! be made to show.
// Tests may panic, and may parse answers as JSON trees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]
#![allow(clippy::print_stdout, unreachable_pub)]

mod answers;
mod bench;
mod broken;
mod bug_reports;
mod check;
mod cli;
mod clock;
mod compaction;
mod connections;
mod content_encoding;
mod dashboards;
mod docs_pages;
mod docs_tests;
mod drift;
mod durability;
mod evolution;
mod examples;
mod explain;
mod faults;
mod files;
mod framing;
mod fuzz;
mod generic;
mod handshakes;
mod held;
mod journey;
mod keys;
mod kill;
mod lag;
mod layout;
mod limits;
mod log;
mod memory;
mod metrics_page;
mod new_schema;
mod oncall;
mod operator;
mod outcomes;
mod packages;
mod page;
mod partitions;
mod pressure;
mod provider_pages;
mod providers;
mod provision;
mod refusals;
mod registries;
mod registry;
mod reload;
mod replay;
mod rules;
mod secrets;
mod security;
mod shutdown;
mod slow;
mod spool;
mod spool_commands;
mod spool_faults;
mod status;
mod strangers;
mod subscription;
mod support;
mod tls;
mod topic_rules;
mod topics_page;
mod traces;
mod types;
mod versions;
