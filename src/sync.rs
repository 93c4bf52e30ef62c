//! What threads count with. The standard library's; `tests/models` compiles the same counters with loom's in their place
//! and goes through the orders in which threads can meet.

pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};
