//! What a failure of the transport means: whether nobody answered, or somebody refused somebody.

use std::error::Error as StdError;
use std::io;

use rustls::AlertDescription;
use tonic::{Code, Status};

use crate::error::{Error, ItemError, Reason};

/// Why TLS ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFault {
    /// The server does not take our certificate.
    CertificateRefused,
    /// We don't take the server's.
    ServerNotTrusted,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// Looks for one in an error and its causes.
    pub(crate) fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::of(tls));
            }
            // An io::Error's source is that of what it holds, not what it holds.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match held {
                Some(held) => Some(held),
                None => error.source(),
            };
        }
        None
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::CertificateRequired
                | AlertDescription::DecryptError,
            ) => Self::CertificateRefused,
            rustls::Error::InvalidCertificate(_) => Self::ServerNotTrusted,
            _ => Self::Other,
        }
    }
}

/// Explains a status: the server's own as it is, one that the transport made by its cause.
pub(crate) fn explain(status: &Status, noted: Option<TlsFault>) -> Error {
    let Some(source) = status.source() else { return Error::from_status(status) };
    match TlsFault::find(source).or(noted) {
        Some(TlsFault::CertificateRefused) => {
            ItemError::of(Reason::CertificateRefused, Code::Unauthenticated).into()
        }
        Some(TlsFault::ServerNotTrusted) => {
            // Not UNAVAILABLE: trying again does not help.
            ItemError::of(Reason::ServerNotTrusted, Code::FailedPrecondition).into()
        }
        Some(TlsFault::Other) | None => Error::connection(&root_cause(source)),
    }
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
