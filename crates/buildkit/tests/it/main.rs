//! Both ends of the protocol in one process, with a builder that only reads and writes files.

mod fake;
mod hostile;
mod protocol;
