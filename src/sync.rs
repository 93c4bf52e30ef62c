//! Synchronization primitives of the counters that threads share. They are the standard library's; `tests/models`
//! compiles the same counters with loom's instead and explores every order in which threads can meet.

pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};
