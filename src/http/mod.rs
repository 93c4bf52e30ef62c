//! HTTP: the port that providers call, and the operator's.

mod addresses;
mod admin;
mod body;
mod callers;
mod connections;
mod guard;
mod ingest;
mod line;
mod ours;
mod refusals;
mod response;
mod routes;
mod serve;
mod strangers;
mod tls;
mod unverified;
mod verification;
mod wire;

pub use addresses::network_of;
pub use admin::Operator;
pub use body::Bodies;
pub use callers::{Callers, Client};
pub use connections::{Connections, Lifetime, Load};
pub use guard::{Access, REQUEST_HEADER};
pub use ingest::{Ingest, Limits};
pub use line::{Line, Watch, log};
pub use refusals::{Diagnoses, Refusals, refusals};
pub use routes::{admin, hooks};
pub use serve::{ConnectionLimits, serve};
pub use tls::{InUse, Ports, Tls, Token, admin_tls, dns_name, hooks_tls};
pub use verification::Verification;

/// How far a shutdown has come. Only ever moves down the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Taking deliveries.
    Serving,
    /// Not ready any more, still taking deliveries, each answered with `Connection: close`.
    Draining,
    /// New deliveries are answered 503.
    Refusing,
    /// Connections are being closed.
    Closing,
}
