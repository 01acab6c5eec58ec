//! `vault.v1.SecurityKeyService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::security_key_service_server::SecurityKeyService;

use crate::access::{Confirmation, EnrolledKey, Fingerprint, SecurityKey};
use crate::audit::AuditAction;
use crate::domain::{PrincipalId, SecondFactorAction};
use crate::vault::{Enrollment, Note, Problem, Refused, Revocation, Vault};

use super::break_glass::given;
use super::serve::serve;

pub(super) struct SecurityKeyApi {
    vault: Arc<Vault>,
}

impl SecurityKeyApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl SecurityKeyService for SecurityKeyApi {
    async fn enroll_security_key(
        &self,
        request: Request<v1::EnrollSecurityKeyRequest>,
    ) -> Result<Response<v1::EnrollSecurityKeyResponse>, Status> {
        serve(&self.vault, AuditAction::SecurityKeyChange, request, async |vault, cx, request| {
            let v1::EnrollSecurityKeyRequest { tenant, id, public_key, reason, ticket } = request;
            let asked = enrollment(&id, &public_key, reason, ticket);
            let (known, waits) = vault.enroll_security_key(cx, &tenant, asked).await?;
            let waiting = waits.map(|id| id.to_string()).unwrap_or_default();
            Ok(v1::EnrollSecurityKeyResponse { key: Some(wire_key(&known)), waiting })
        })
        .await
    }

    async fn revoke_security_key(
        &self,
        request: Request<v1::RevokeSecurityKeyRequest>,
    ) -> Result<Response<v1::RevokeSecurityKeyResponse>, Status> {
        serve(&self.vault, AuditAction::SecurityKeyChange, request, async |vault, cx, request| {
            let v1::RevokeSecurityKeyRequest { tenant, id, fingerprint, reason, ticket } = request;
            vault.revoke_security_key(cx, &tenant, revocation(&id, &fingerprint, reason, ticket)).await?;
            Ok(v1::RevokeSecurityKeyResponse {})
        })
        .await
    }

    async fn confirm_security_key(
        &self,
        request: Request<v1::ConfirmSecurityKeyRequest>,
    ) -> Result<Response<v1::ConfirmSecurityKeyResponse>, Status> {
        serve(&self.vault, AuditAction::SecurityKeyChange, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let asked = factor.and_then(|factor| Ok((fingerprint(&request.fingerprint)?, factor)));
            let known = vault.confirm_security_key(cx, asked).await?;
            Ok(v1::ConfirmSecurityKeyResponse { key: Some(wire_key(&known)) })
        })
        .await
    }

    async fn begin_second_factor(
        &self,
        request: Request<v1::BeginSecondFactorRequest>,
    ) -> Result<Response<v1::BeginSecondFactorResponse>, Status> {
        serve(&self.vault, AuditAction::SecondFactorBegin, request, async |vault, cx, request| {
            let begun = vault.begin_second_factor(cx, asked(request.action, &request.request_hash)).await?;
            Ok(v1::BeginSecondFactorResponse {
                challenge_id: begun.challenge.as_bytes().to_vec().into(),
                text: begun.text,
                namespace: begun.namespace.to_owned(),
                expires_us: begun.expires.0,
                public_keys: begun.public_keys,
            })
        })
        .await
    }
}

fn principal(id: &str) -> Result<PrincipalId, Refused> {
    let rule = Problem::Field("a principal's id: 1 to 128 characters of a-z, 0-9 and '-._@/'");
    PrincipalId::parse(id).map_err(|_| rule.at("id"))
}

fn enrollment(id: &str, line: &str, reason: String, ticket: String) -> Result<Enrollment, Refused> {
    let principal = principal(id)?;
    let (key, label) =
        SecurityKey::parse_line(line).map_err(|error| Problem::Field(error.rule()).at("public_key"))?;
    Ok(Enrollment { principal, key, label, note: Note::parse(reason, ticket)? })
}

fn fingerprint(text: &str) -> Result<Fingerprint, Refused> {
    let rule = Problem::Field("SHA256: and 43 characters, as `ssh-keygen -l` prints it");
    Fingerprint::parse(text).ok_or_else(|| rule.at("fingerprint"))
}

fn revocation(id: &str, key: &str, reason: String, ticket: String) -> Result<Revocation, Refused> {
    let (principal, key) = (principal(id)?, fingerprint(key)?);
    Ok(Revocation { principal, key, note: Note::parse(reason, ticket)? })
}

fn asked(action: i32, request_hash: &[u8]) -> Result<(SecondFactorAction, [u8; 32]), Refused> {
    let action = match v1::SecondFactorAction::try_from(action) {
        Ok(v1::SecondFactorAction::GrantRequest) => SecondFactorAction::GrantRequest,
        Ok(v1::SecondFactorAction::GrantApprove) => SecondFactorAction::GrantApprove,
        Ok(v1::SecondFactorAction::GrantDeny) => SecondFactorAction::GrantDeny,
        Ok(v1::SecondFactorAction::KeyConfirm) => SecondFactorAction::KeyConfirm,
        Ok(v1::SecondFactorAction::JobApprove) => SecondFactorAction::JobApprove,
        Ok(v1::SecondFactorAction::PrincipalChangeApprove) => SecondFactorAction::PrincipalChangeApprove,
        Ok(v1::SecondFactorAction::Unspecified) | Err(_) => {
            return Err(Problem::Field("one of the actions").at("action"));
        }
    };
    let hash = request_hash.try_into();
    Ok((action, hash.map_err(|_| Problem::Field("32 bytes").at("request_hash"))?))
}

pub(super) fn wire_key(known: &EnrolledKey) -> v1::SecurityKey {
    v1::SecurityKey {
        fingerprint: known.key.fingerprint().to_string(),
        kind: known.key.kind().as_str().to_owned(),
        label: known.label.clone(),
        enrolled_us: known.enrolled.0,
        enrolled_by: known.enrolled_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        confirmed: known.confirmed != Confirmation::Waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(parsed: Result<T, Refused>) -> String {
        let refused = parsed.map(|_| ()).unwrap_err();
        assert!(matches!(refused.problem, Problem::Field(_)));
        refused.field
    }

    #[test]
    fn what_is_asked_is_parsed_or_refused_with_its_field() {
        assert_eq!(asked(1, &[7; 32]).unwrap(), (SecondFactorAction::GrantRequest, [7; 32]));
        assert_eq!(asked(2, &[7; 32]).unwrap().0, SecondFactorAction::GrantApprove);
        assert_eq!(asked(3, &[7; 32]).unwrap().0, SecondFactorAction::GrantDeny);
        assert_eq!(asked(4, &[7; 32]).unwrap().0, SecondFactorAction::KeyConfirm);
        assert_eq!(asked(5, &[7; 32]).unwrap().0, SecondFactorAction::JobApprove);
        assert_eq!(asked(6, &[7; 32]).unwrap().0, SecondFactorAction::PrincipalChangeApprove);
        for bad in [-1, 0, 99] {
            assert_eq!(refused(asked(bad, &[7; 32])), "action");
        }
        for bad in [&[][..], &[7; 31], &[7; 33]] {
            assert_eq!(refused(asked(1, bad)), "request_hash");
        }
        let note = || (String::new(), String::new());
        let enroll = |id: &str, line: &str| enrollment(id, line, note().0, note().1);
        assert_eq!(refused(enroll("Ada", "")), "id");
        assert_eq!(refused(enroll("ada", "ssh-ed25519 AAAA")), "public_key");
        let revoke = |id: &str, key: &str| revocation(id, key, note().0, note().1);
        assert_eq!(refused(revoke("", "")), "id");
        assert_eq!(refused(revoke("ada", "SHA256:AAAA")), "fingerprint");
    }
}
