//! HTTP: the port that providers call, and the operator's port.

mod connection_counter;
mod admin;
pub mod admission;
mod body;
mod client_address;
mod connections;
mod guard;
mod ingest;
mod limits;
mod rejected;
mod report;
mod detach;
mod diagnosis;
mod response;
mod routes;
mod serve;
mod strangers;
mod tls;
mod failed_auth;
mod verification;
mod wire;

pub use admin::Operator;
pub use body::BodyBudget;
pub use client_address::{ClientAddress, ClientResolver};
pub use connection_counter::network_of;
pub use connections::{Connections, Load};
pub use diagnosis::{Diagnoser, DiagnosisQueue, refusals};
pub use guard::{Access, REQUEST_HEADER};
pub use ingest::Ingest;
pub use limits::{ConnectionLimits, Lifetime, RequestLimits};
pub use report::{DeliveryObserver, DeliveryReport, log};
pub use response::{AdminErrorBody, DELIVERY_HEADER, DeliveryAnswer};
pub use routes::{admin, hooks};
pub use serve::serve;
pub use tls::{CurrentTls, PortSecurity, Tls, Token, admin_tls, dns_name, hooks_tls};
pub use verification::Verification;

/// The phase of a shutdown. Phases only advance in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting deliveries.
    Serving,
    /// Not ready, but still accepting deliveries; each answer has `Connection: close`.
    Draining,
    /// New deliveries are answered with 503.
    Refusing,
    /// Connections are closed.
    Closing,
}
