//! Who is at the other end of a connection.

use std::sync::Arc;

use tonic::{Extensions, Status};

use crate::access::Credential;

/// What a request has shown: its token, or the certificate of its connection.
#[derive(Clone)]
pub struct PeerIdentity(pub Arc<Credential>);

/// The credential of a request. A listener that sets none lets nobody in.
pub(super) fn credential(extensions: &Extensions) -> Result<Arc<Credential>, Status> {
    extensions
        .get::<PeerIdentity>()
        .map(|peer| Arc::clone(&peer.0))
        .ok_or_else(|| Status::unauthenticated("a client certificate or a session is required"))
}
