//! Connections to the vault: TLS 1.3 with a client certificate, one channel an endpoint.
//!
//! * [`identity`] reads certificates and keys, and reads them again when the files changed.
//! * [`connector`] makes one connection.
//! * [`pool`] chooses among endpoints and leaves a failing one alone for a while.
//! * [`fault`] tells what a failure of the transport means.

pub(crate) mod bearer;
pub(crate) mod connector;
pub(crate) mod fault;
pub(crate) mod identity;
pub(crate) mod pool;
