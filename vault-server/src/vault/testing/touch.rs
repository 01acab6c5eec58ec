//! Security keys of the people of a rig: enrolled, confirmed, touched and taken back.

use sha2::{Digest as _, Sha256};

use super::Rig;
use crate::access::authenticator::{Authenticator, Manner};
use crate::access::{EnrolledKey, SecurityKey};
use crate::audit::{AuditAction, LogError};
use crate::domain::{PrincipalId, SecondFactorAction, TenantId};
use crate::vault::{
    Approved, BegunFactor, Context, Enrollment, GivenFactor, Note, Problem, ProposalNamed, Revocation, Touch,
};

/// What is asked for, as it came.
pub(in crate::vault) const REQUEST: &[u8] = b"a request";

impl Rig {
    /// By `who`, then approved by an admin of the vault, and confirmed by its owner.
    pub(in crate::vault) async fn enroll(
        &self,
        who: &str,
        id_of: &str,
        line: &str,
    ) -> Result<EnrolledKey, Problem> {
        let (key, label) = SecurityKey::parse_line(line).unwrap();
        let asked =
            Enrollment { principal: PrincipalId::parse(id_of).unwrap(), key, label, note: Note::default() };
        let cx = self.cx(who).await;
        let asked = self.vault.enroll_security_key(&cx, "demo", Ok(asked)).await;
        let (key, waits) = asked.map_err(|refused| refused.problem)?;
        let Some(id) = waits else { return Ok(key) };
        let approver = self.cx(if who == "root" { "super" } else { "root" }).await;
        let waiting = self.vault.list_principal_changes(&approver, "demo").await.unwrap();
        let waits = waiting.into_iter().find(|waits| waits.proposal.id == id).unwrap();
        let named =
            ProposalNamed { id, hash: waits.proposal.hash().to_vec(), note: Note::default(), factor: None };
        match self.vault.approve_principal_change(&approver, "demo", Ok(named)).await {
            // One that nobody could make again is confirmed by who has it.
            Ok(Approved::SecurityKey(key)) if line.starts_with("sk-ecdsa") => Ok(*key),
            Ok(Approved::SecurityKey(_)) => Ok(self.confirm(id_of, line).await.unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.problem),
        }
    }

    /// By its owner, with the key that has this line.
    pub(in crate::vault) async fn confirm(&self, owner: &str, line: &str) -> Result<EnrolledKey, Problem> {
        let is_it = |key: &Authenticator| key.line("").split(' ').nth(1) == line.split(' ').nth(1);
        let key = (1..=32).map(Authenticator::ed25519).find(is_it).unwrap();
        self.confirm_with(owner, &key, Manner::good(0)).await
    }

    pub(in crate::vault) async fn confirm_with(
        &self,
        owner: &str,
        key: &Authenticator,
        manner: Manner<'_>,
    ) -> Result<EnrolledKey, Problem> {
        let wanted = SecurityKey::from_blob(&key.blob()).unwrap();
        let cx = self.cx(owner).await;
        let begun = self.begin_for(&cx, SecondFactorAction::KeyConfirm).await?;
        // A key that was somebody's before goes on counting.
        let before = self.vault.key_row(&wanted.fingerprint()).await.unwrap().known.unwrap().counter;
        let counter = if before == 0 { 0 } else { before + 1 };
        let factor = given(&begun, key, Manner { counter, ..manner });
        let asked = Ok((wanted.fingerprint(), Some(factor)));
        self.vault.confirm_security_key(&cx, asked).await.map_err(|refused| refused.problem)
    }

    pub(in crate::vault) async fn revoke(&self, who: &str, id: &str, line: &str) -> Result<(), Problem> {
        let key = SecurityKey::parse_line(line).unwrap().0.fingerprint();
        let asked = Revocation { principal: PrincipalId::parse(id).unwrap(), key, note: Note::default() };
        let cx = self.cx(who).await;
        self.vault.revoke_security_key(&cx, "demo", Ok(asked)).await.map_err(|refused| refused.problem)
    }

    pub(in crate::vault) async fn begin(&self, cx: &Context) -> Result<BegunFactor, Problem> {
        self.begin_for(cx, SecondFactorAction::GrantApprove).await
    }

    pub(in crate::vault) async fn begin_for(
        &self,
        cx: &Context,
        action: SecondFactorAction,
    ) -> Result<BegunFactor, Problem> {
        let fields = (action, Sha256::digest(REQUEST).into());
        self.vault.begin_second_factor(cx, Ok(fields)).await.map_err(|refused| refused.problem)
    }

    pub(in crate::vault) async fn touched(
        &self,
        cx: &Context,
        given: Option<GivenFactor>,
    ) -> Result<Touch, Problem> {
        let draft = cx.draft(AuditAction::GrantApprove, &demo());
        let touched = self.vault.touched(cx, &draft, SecondFactorAction::GrantApprove, given).await;
        touched.map_err(|refused| {
            assert!(refused.logged, "a refusal is on record");
            refused.problem
        })
    }

    /// Does what it was touched for.
    pub(in crate::vault) async fn used(&self, cx: &Context, given: GivenFactor) -> Result<(), Problem> {
        let touch = self.touched(cx, Some(given)).await?;
        self.commit(cx, touch).await.map_err(|error| {
            assert!(matches!(error, LogError::Conflict { .. }));
            Problem::ChangedMeanwhile
        })
    }

    pub(in crate::vault) async fn commit(&self, cx: &Context, touch: Touch) -> Result<(), LogError> {
        let draft = cx.draft(AuditAction::GrantApprove, &demo());
        self.vault.parts.log.commit(draft, Vec::new(), touch.into_writes()).await.map(drop)
    }

    /// Does what it was touched for, with this key.
    pub(in crate::vault) async fn used_with(
        &self,
        cx: &Context,
        begun: &BegunFactor,
        key: &Authenticator,
        counter: u32,
    ) -> Result<(), Problem> {
        self.used(cx, self.given(begun, key, counter)).await
    }

    #[expect(clippy::unused_self, reason = "one of a kind with the others")]
    pub(in crate::vault) fn given(
        &self,
        begun: &BegunFactor,
        key: &Authenticator,
        counter: u32,
    ) -> GivenFactor {
        given(begun, key, Manner::good(counter))
    }
}

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

/// What a person gives who touched the key.
pub(in crate::vault) fn given(begun: &BegunFactor, key: &Authenticator, manner: Manner<'_>) -> GivenFactor {
    let signature = key.pem(&begun.text, manner);
    GivenFactor::parse(begun.challenge.as_bytes(), signature, REQUEST).unwrap()
}
