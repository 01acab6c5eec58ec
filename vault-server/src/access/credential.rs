//! What a caller shows: a client certificate, and what it says of its holder, or a token.
//!
//! The TLS layer has verified the chain, the times and the key's possession before anything here is asked; here
//! it is read once for each connection, and whatever is odd about it is an error.
//!
//! * A certificate with a URI SAN is an X.509-SVID: exactly one URI SAN, and that a SPIFFE id (X509-SVID, section 2),
//!   and not a CA's certificate (section 4.1).
//! * One without is known by its whole subject (RFC 4514).

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::access::identity::{self, InvalidIdentity};
use crate::access::name;
use crate::access::oidc::Verified;
use crate::domain::Timestamp;

/// What a caller shows, verified, as far as access depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// SHA-256 of the certificate or the token; zeros if there is none.
    pub fingerprint: [u8; 32],
    /// `spiffe://...`, `subject:CN=...` or `oidc:...`, as presented.
    pub identities: Vec<String>,
    /// Where the connection comes from.
    pub source: Option<IpAddr>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// What it is.
    pub kind: CredentialKind,
}

/// What a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// A client certificate.
    Certificate,
    /// Nothing at all.
    Nothing,
    /// An access token of an identity provider: good for opening a session.
    AccessToken(Arc<Verified>),
    /// A session of the vault's.
    Session(Arc<SessionProof>),
    /// A token that is not good; why, for the log.
    Refused(&'static str),
    /// A session's token, of which it can't be found out now whether it is good.
    Unknown,
}

/// By what a session was found; whether it still stands is asked for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionProof {
    /// SHA-256 of the session token.
    pub name: [u8; 32],
    /// SHA-256 of the certificate that came with the connection.
    pub certificate: Option<[u8; 32]>,
    /// How its owner was authenticated.
    pub factors: Vec<&'static str>,
}

/// Why a certificate identifies nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not a certificate, or something follows it.
    #[error("the client certificate is malformed")]
    Malformed,
    /// The certificate of a CA is not a caller's.
    #[error("the client certificate is a CA's")]
    CertificateAuthority,
    /// The subject alternative names are malformed.
    #[error("the client certificate's subject alternative names are malformed")]
    AlternativeNames,
    /// More than one URI: it can't be told which is meant.
    #[error("the client certificate has more than one URI among its subject alternative names")]
    SeveralUris,
    /// A URI that is no SPIFFE id, or not a well-formed one.
    #[error("the client certificate's URI is not a SPIFFE id: {0}")]
    Uri(InvalidIdentity),
    /// No URI, and a subject that is empty or has something other than text in it.
    #[error("the client certificate has neither a SPIFFE id nor a usable subject")]
    Subject,
    /// A time before 1970.
    #[error("the client certificate's times are out of range")]
    Validity,
}

impl Credential {
    /// Of a certificate that names no caller: nobody will be found under it, but the log can say which it was.
    pub fn of_nobody(der: &[u8], source: Option<IpAddr>) -> Self {
        Self {
            fingerprint: Sha256::digest(der).into(),
            identities: Vec::new(),
            source,
            not_before: Timestamp(0),
            not_after: Timestamp(u64::MAX),
            kind: CredentialKind::Certificate,
        }
    }

    /// Of a connection without a certificate.
    pub fn nothing(source: Option<IpAddr>) -> Self {
        Self { fingerprint: [0; 32], kind: CredentialKind::Nothing, ..Self::of_nobody(&[], source) }
    }

    /// Of a token that came on this connection.
    #[must_use]
    pub fn with_token(&self, fingerprint: [u8; 32], identity: String, kind: CredentialKind) -> Self {
        let identities = vec![identity];
        Self {
            fingerprint,
            identities,
            kind,
            not_before: Timestamp(0),
            not_after: Timestamp(u64::MAX),
            ..*self
        }
    }

    /// Of a token that came on this connection, and is not good. It speaks for nobody, whatever the certificate says.
    #[must_use]
    pub fn refused(&self, cause: &'static str) -> Self {
        Self { kind: CredentialKind::Refused(cause), ..self.clone() }
    }

    /// SHA-256 of the certificate or the token.
    pub fn shown(&self) -> Option<[u8; 32]> {
        (self.fingerprint != [0; 32]).then_some(self.fingerprint)
    }

    /// How its owner was authenticated, for the log.
    pub fn factors(&self) -> Vec<&'static str> {
        match &self.kind {
            CredentialKind::Certificate => vec!["mtls"],
            CredentialKind::Nothing | CredentialKind::Refused(_) | CredentialKind::Unknown => {
                self.shown().map(|_| "mtls").into_iter().collect()
            }
            CredentialKind::AccessToken(token) => token.factors.clone(),
            CredentialKind::Session(session) => session.factors.clone(),
        }
    }

    /// Reads a certificate (DER) that the TLS layer has verified.
    pub fn from_certificate(der: &[u8], source: Option<IpAddr>) -> Result<Self, CredentialError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CredentialError::Malformed)?;
        if !rest.is_empty() {
            return Err(CredentialError::Malformed);
        }
        let constraints = certificate.basic_constraints().map_err(|_| CredentialError::Malformed)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(CredentialError::CertificateAuthority);
        }
        Ok(Self {
            fingerprint: Sha256::digest(der).into(),
            identities: vec![identity_of(&certificate)?],
            source,
            not_before: timestamp(certificate.validity().not_before)?,
            not_after: timestamp(certificate.validity().not_after)?,
            kind: CredentialKind::Certificate,
        })
    }
}

fn identity_of(certificate: &X509Certificate<'_>) -> Result<String, CredentialError> {
    let names = certificate.subject_alternative_name().map_err(|_| CredentialError::AlternativeNames)?;
    let mut uri = None;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(_) if uri.is_some() => return Err(CredentialError::SeveralUris),
            GeneralName::URI(text) => uri = Some(*text),
            GeneralName::Invalid(..) => return Err(CredentialError::AlternativeNames),
            _ => {}
        }
    }
    if let Some(uri) = uri {
        if !identity::is_spiffe(uri) {
            return Err(CredentialError::Uri(InvalidIdentity::Kind));
        }
        return identity::canonical(uri).map(|_| uri.to_owned()).map_err(CredentialError::Uri);
    }
    let subject = name::of_certificate(certificate.subject()).ok_or(CredentialError::Subject)?;
    let identity = format!("{}{subject}", identity::SUBJECT);
    // A subject that the principals file could not name is nobody's.
    identity::canonical(&identity).map_err(|_| CredentialError::Subject)?;
    Ok(identity)
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, CredentialError> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .map(Timestamp)
        .ok_or(CredentialError::Validity)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, KeyPair,
        SanType, date_time_ymd,
    };

    use super::*;

    fn certificate(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn identity(der: &[u8]) -> Result<String, CredentialError> {
        Credential::from_certificate(der, None).map(|credential| credential.identities.concat())
    }

    #[test]
    fn an_svid_is_known_by_its_spiffe_id_and_not_by_its_subject() {
        let der = certificate(&["spiffe://dev.local/billing"], |params| {
            params.distinguished_name.push(DnType::CommonName, "somebody else");
            params.subject_alt_names.push(SanType::DnsName("billing.local".try_into().unwrap()));
            params.not_before = date_time_ymd(2026, 1, 1);
            params.not_after = date_time_ymd(2026, 1, 2);
        });
        let credential = Credential::from_certificate(&der, Some([10, 0, 0, 1].into())).unwrap();
        assert_eq!(credential.identities, ["spiffe://dev.local/billing"]);
        assert_eq!(credential.fingerprint[..], Sha256::digest(&der)[..]);
        assert_eq!(credential.source, Some([10, 0, 0, 1].into()));
        assert_eq!(credential.not_before, Timestamp(1_767_225_600_000_000));
        assert_eq!(credential.not_after, Timestamp(1_767_312_000_000_000));
    }

    #[test]
    fn a_certificate_without_uri_is_known_by_its_whole_subject() {
        let der = certificate(&[], |params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example");
            params.distinguished_name.push(DnType::CommonName, "billing");
        });
        assert_eq!(identity(&der).as_deref(), Ok("subject:CN=billing,O=Example"));
    }

    #[test]
    fn a_subject_can_not_be_written_so_that_it_reads_as_another() {
        let der = certificate(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, "billing,O=Example");
        });
        assert_eq!(identity(&der).as_deref(), Ok(r"subject:CN=billing\,O=Example"));
    }

    #[test]
    fn a_malformed_name_beside_a_good_one_is_refused() {
        let good = b"spiffe://dev.local/a";
        // SEQUENCE { [6] the URI, [2] a name of a host with a byte that is not ASCII }
        let names = [&[0x86, 20][..], good, &[0x82, 2, b'a', 0xff]].concat();
        let names = [&[0x30, names.len() as u8][..], &names].concat();
        let der = certificate(&[], |params| {
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
        });
        assert_eq!(identity(&der), Err(CredentialError::AlternativeNames));
    }

    #[test]
    fn a_connection_without_a_certificate_shows_nothing() {
        let source = Some([10, 0, 0, 1].into());
        let nothing = Credential::nothing(source);
        assert_eq!((nothing.kind.clone(), nothing.shown()), (CredentialKind::Nothing, None));
        assert_eq!((nothing.source, nothing.identities.len()), (source, 0));
        assert_eq!(nothing.factors(), [""; 0]);
        let nobody = Credential::of_nobody(b"a certificate", source);
        assert_eq!(nobody.shown(), Some(Sha256::digest(b"a certificate").into()));
        assert_eq!((nobody.kind, nobody.identities.len()), (CredentialKind::Certificate, 0));
    }

    #[test]
    fn a_token_speaks_for_its_owner_and_not_for_the_certificates() {
        let der = certificate(&["spiffe://dev.local/proxy"], |_| ());
        let proxy = Credential::from_certificate(&der, Some([10, 0, 0, 1].into())).unwrap();
        let proof = SessionProof { name: [3; 32], certificate: proxy.shown(), factors: vec!["oidc", "hwk"] };
        let kind = CredentialKind::Session(Arc::new(proof));
        let session = proxy.with_token([9; 32], "oidc:https://idp.example.org#ann".to_owned(), kind.clone());
        assert_eq!(session.identities, ["oidc:https://idp.example.org#ann"]);
        assert_eq!((session.shown(), session.kind.clone()), (Some([9; 32]), kind));
        assert_eq!((session.factors(), session.source), (vec!["oidc", "hwk"], proxy.source));
        // How long it is good is the session's business, not the certificate's.
        assert_eq!((session.not_before, session.not_after), (Timestamp(0), Timestamp(u64::MAX)));
        let refused = proxy.refused("token_form");
        assert_eq!(refused, Credential { kind: CredentialKind::Refused("token_form"), ..proxy });
        assert_eq!(refused.factors(), ["mtls"]);
        assert_eq!(Credential::nothing(None).refused("token_form").factors(), [""; 0]);
    }

    #[test]
    fn what_is_odd_is_refused() {
        let spiffe = "spiffe://dev.local/billing";
        for (der, why) in [
            (certificate(&[spiffe, "spiffe://dev.local/admin"], |_| ()), CredentialError::SeveralUris),
            (certificate(&[spiffe, spiffe], |_| ()), CredentialError::SeveralUris),
            (certificate(&[spiffe, "https://example.org/"], |_| ()), CredentialError::SeveralUris),
            (certificate(&["https://example.org/"], |_| ()), CredentialError::Uri(InvalidIdentity::Kind)),
            (certificate(&["subject:CN=a"], |_| ()), CredentialError::Uri(InvalidIdentity::Kind)),
            (certificate(&["spiffe://dev.local"], |_| ()), CredentialError::Uri(InvalidIdentity::Path)),
            (certificate(&["spiffe://dev.local/a?b"], |_| ()), CredentialError::Uri(InvalidIdentity::Path)),
            (certificate(&[], |_| ()), CredentialError::Subject),
            (
                certificate(&[spiffe], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                CredentialError::CertificateAuthority,
            ),
            (b"not a certificate".to_vec(), CredentialError::Malformed),
            ([certificate(&[spiffe], |_| ()), vec![0]].concat(), CredentialError::Malformed),
        ] {
            assert_eq!(identity(&der), Err(why));
        }
    }
}
