//! Who is at the other end of a connection.

use std::sync::Arc;

use tonic::{Extensions, Status};

use crate::access::Credential;

/// What the listener knows of a connection's client: made once, at the handshake.
#[derive(Clone)]
pub struct PeerIdentity(pub Arc<Credential>);

/// The credential of a request's connection. A listener that sets none lets nobody in.
pub(super) fn credential(extensions: &Extensions) -> Result<Arc<Credential>, Status> {
    extensions
        .get::<PeerIdentity>()
        .map(|peer| Arc::clone(&peer.0))
        .ok_or_else(|| Status::unauthenticated("a client certificate is required"))
}
