//! Breaking the glass: plain values in an emergency, for who could not have them otherwise.
//!
//! ```no_run
//! use vault_client::break_glass::{GrantScope, NewGrant};
//! use vault_client::second_factor::{SecurityKeySigner as _, SshAgent};
//! use vault_client::{Client, DataClass, Token};
//!
//! # async fn example(oncall: Client, approver: Client, token: Token) -> Result<(), Box<dyn std::error::Error>> {
//! // One person asks, and touches a security key for it:
//! let mut new = NewGrant::new(GrantScope::Tokens(vec![token]), vec![DataClass::SSN]);
//! new.reason_code = "patient_safety".to_owned();
//! new.reason = "two charts were merged in the wrong way".to_owned();
//! let asking = oncall.new_grant(new)?;
//! let challenge = oncall.begin_second_factor(asking.action(), asking.hash()).await?;
//! let grant = oncall.request_grant(&asking, SshAgent::from_env()?.sign(&challenge).await?).await?;
//!
//! // Another one looks at it, and approves what was seen and nothing else:
//! let seen = approver.get_grant(&grant.id).await?;
//! let approving = approver.approval(&seen, "");
//! let challenge = approver.begin_second_factor(approving.action(), approving.hash()).await?;
//! approver.approve_grant(&approving, SshAgent::from_env()?.sign(&challenge).await?).await?;
//!
//! // Then the first has minutes, and so many values:
//! let revealed = oncall.reveal(&grant.id, &[]).await?;
//! oncall.close_grant(&grant.id, "").await?;
//! # let _ = revealed; Ok(()) }
//! ```
//!
//! Every call is in the vault's log before it is answered, with the grant's id: [`AuditQuery::grant`] finds all of it.
//! Only reading and asking are repeated when the vault is not available. What answers, shows values or ends a grant is done
//! once: after an error look at the grant first, for it may have been done.
//!
//! [`AuditQuery::grant`]: crate::audit::AuditQuery::grant

mod grant;

use std::time::Duration;

use crate::transport::bearer::Channel;
use vault_proto::v1 as wire;
use vault_proto::v1::break_glass_service_client::BreakGlassServiceClient;

use crate::class::DataClass;
use crate::client::{Client, MOST_ANSWER};
use crate::error::{Error, ItemError};
use crate::second_factor::{SecondFactor, SecondFactorAction, only_untouched, request_hash};
use crate::token::Token;
use crate::value::{Plaintext, SubjectId};
use crate::wire::{no_outcome, plaintext};

pub use grant::{Grant, GrantId, GrantState, InvalidGrantId, Verdict};

/// What a grant is about.
pub enum GrantScope {
    /// These tokens.
    Tokens(Vec<Token>),
    /// All values of a person.
    Subject(SubjectId),
}

/// A grant to be asked for.
pub struct NewGrant {
    /// What it is to be about.
    pub scope: GrantScope,
    /// Classes of values that may be seen. At least one.
    pub classes: Vec<DataClass>,
    /// One of the vault's reason codes: `patient_safety`, `outage`, `data_repair`, `legal`, `security_incident`, unless it is
    /// configured otherwise.
    pub reason_code: String,
    /// Why, in 10 to 512 characters of one line. Put no PHI into it.
    pub reason: String,
    /// A ticket or case number.
    pub ticket: String,
    /// How long from its approval; `None`: as long as is usual there.
    pub duration: Option<Duration>,
    /// How many values; 0: one for each token, or as many as is usual for a person.
    pub values: u32,
}

impl NewGrant {
    /// Without a reason yet, which it needs, and with the vault's own bounds.
    pub fn new(scope: GrantScope, classes: Vec<DataClass>) -> Self {
        let (reason_code, reason, ticket) = Default::default();
        Self { scope, classes, reason_code, reason, ticket, duration: None, values: 0 }
    }
}

/// A request for a grant, ready to be touched for and sent: [`Client::new_grant`].
pub struct Asking(wire::RequestGrantRequest);

/// An approval, ready to be touched for and sent: [`Client::approval`].
pub struct Approving(wire::ApproveGrantRequest);

/// A denial, ready to be touched for and sent: [`Client::denial`].
pub struct Denying(wire::DenyGrantRequest);

macro_rules! touched {
    ($($name:ident $action:ident;)*) => {
        $(impl $name {
            /// What the second factor is for: see [`Client::begin_second_factor`].
            pub fn action(&self) -> SecondFactorAction {
                SecondFactorAction::$action
            }

            /// What it is bound to: every byte of the request.
            pub fn hash(&self) -> [u8; 32] {
                request_hash(&self.0)
            }
        })*
    };
}

touched! {
    Asking GrantRequest;
    Approving GrantApprove;
    Denying GrantDeny;
}

/// A grant as somebody saw it who may approve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGrant {
    /// The grant.
    pub grant: Grant,
    terms: Vec<u8>,
}

/// A value, or why there is none.
pub struct Revealed {
    /// Its token.
    pub token: String,
    /// Its class; empty if there is no value.
    pub class: String,
    /// The value.
    pub value: Result<Plaintext, ItemError>,
}

fn service(channel: Channel) -> BreakGlassServiceClient<Channel> {
    BreakGlassServiceClient::new(channel).max_decoding_message_size(MOST_ANSWER)
}

impl Client {
    /// A request for a grant at the client's tenant, under an idempotency key of its own: sent twice, it is one grant.
    pub fn new_grant(&self, new: NewGrant) -> Result<Asking, Error> {
        let NewGrant { scope, classes, reason_code, reason, ticket, duration, values } = new;
        let (tokens, subject) = match scope {
            GrantScope::Tokens(tokens) => (tokens.iter().map(ToString::to_string).collect(), None),
            GrantScope::Subject(subject) => (Vec::new(), Some(wire::SubjectId { id: subject.into_inner() })),
        };
        let data_classes = classes.iter().map(|class| class.as_str().to_owned()).collect();
        let duration = duration.map_or(0, |duration| duration.as_secs());
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| Error::configuration(&error.to_string()))?;
        Ok(Asking(wire::RequestGrantRequest {
            tenant: self.tenant(),
            scope: Some(wire::GrantScope { tokens, subject, data_classes }),
            reason_code,
            reason,
            ticket,
            duration_s: u32::try_from(duration).unwrap_or(u32::MAX),
            values,
            second_factor: None,
            idempotency_key: hex::encode(key),
        }))
    }

    /// Whether nothing but the touch is missing for it: the request goes without one and is refused, on record. An error is why
    /// it would be refused with one, too. So nobody touches a security key, and wakes nobody, for nothing.
    pub async fn check_asking(&self, asking: &Asking) -> Result<(), Error> {
        let answer = self
            .call_of(service, asking.0.clone(), async |mut service, request| {
                service.request_grant(request).await
            })
            .await;
        only_untouched(answer)
    }

    /// Asks for a grant.
    pub async fn request_grant(&self, asking: &Asking, factor: SecondFactor) -> Result<Grant, Error> {
        let mut request = asking.0.clone();
        request.second_factor = Some(factor.into());
        let answer = self
            .call_of(service, request, async |mut service, request| service.request_grant(request).await)
            .await?;
        some(answer.grant)
    }

    /// A grant, and its terms as they are to be approved.
    pub async fn get_grant(&self, id: &GrantId) -> Result<SeenGrant, Error> {
        let request = wire::GetGrantRequest { tenant: self.tenant(), grant_id: id.to_string() };
        let answer = self
            .call_of(service, request, async |mut service, request| service.get_grant(request).await)
            .await?;
        Ok(SeenGrant { grant: some(answer.grant)?, terms: answer.terms_hash.to_vec() })
    }

    /// Grants of the tenant, newest first: those of others only for who may see them. `waiting`: only those that wait, for
    /// approval or for review. `limit`: at most so many; 0 means 100, the most is 1,000.
    pub async fn list_grants(&self, waiting: bool, limit: u32) -> Result<Vec<Grant>, Error> {
        let request = wire::ListGrantsRequest { tenant: self.tenant(), waiting, limit };
        let answer = self
            .call_of(service, request, async |mut service, request| service.list_grants(request).await)
            .await?;
        answer.grants.into_iter().map(Grant::from_wire).collect()
    }

    /// An approval of what was seen, and of nothing else.
    pub fn approval(&self, seen: &SeenGrant, notes: &str) -> Approving {
        Approving(wire::ApproveGrantRequest {
            tenant: self.tenant(),
            grant_id: seen.grant.id.to_string(),
            terms_hash: seen.terms.clone().into(),
            notes: notes.to_owned(),
            second_factor: None,
        })
    }

    /// Whether nothing but the touch is missing for it: see [`Client::check_asking`].
    pub async fn check_approval(&self, approving: &Approving) -> Result<(), Error> {
        let answer = self
            .call_of(service, approving.0.clone(), async |mut service, request| {
                service.approve_grant(request).await
            })
            .await;
        only_untouched(answer)
    }

    /// Approves a grant: another person than who asked, and another than who approved before.
    pub async fn approve_grant(&self, approving: &Approving, factor: SecondFactor) -> Result<Grant, Error> {
        let mut request = approving.0.clone();
        request.second_factor = Some(factor.into());
        let answer = self
            .call_of_once(service, request, async |mut service, request| service.approve_grant(request).await)
            .await?;
        some(answer.grant)
    }

    /// A denial.
    pub fn denial(&self, id: &GrantId, notes: &str) -> Denying {
        Denying(wire::DenyGrantRequest {
            tenant: self.tenant(),
            grant_id: id.to_string(),
            notes: notes.to_owned(),
            second_factor: None,
        })
    }

    /// Whether nothing but the touch is missing for it: see [`Client::check_asking`].
    pub async fn check_denial(&self, denying: &Denying) -> Result<(), Error> {
        let answer = self
            .call_of(service, denying.0.clone(), async |mut service, request| {
                service.deny_grant(request).await
            })
            .await;
        only_untouched(answer)
    }

    /// Denies a grant that waits.
    pub async fn deny_grant(&self, denying: &Denying, factor: SecondFactor) -> Result<Grant, Error> {
        let mut request = denying.0.clone();
        request.second_factor = Some(factor.into());
        let answer = self
            .call_of_once(service, request, async |mut service, request| service.deny_grant(request).await)
            .await?;
        some(answer.grant)
    }

    /// Plain values under a grant: to who asked for it, by the certificate that asked. Of these tokens; without any, of all
    /// that it is about. Each value counts, so this is never repeated by itself. Also tells how it stands with the grant now.
    pub async fn reveal(&self, id: &GrantId, tokens: &[Token]) -> Result<(Vec<Revealed>, Grant), Error> {
        let request = wire::RevealRequest {
            tenant: self.tenant(),
            grant_id: id.to_string(),
            tokens: tokens.iter().map(ToString::to_string).collect(),
        };
        let answer = self
            .call_of_once(service, request, async |mut service, request| service.reveal(request).await)
            .await?;
        if !tokens.is_empty() && answer.results.len() != tokens.len() {
            return Err(Error::bad_answer("it has another number of results than were asked for"));
        }
        let revealed = answer.results.into_iter().map(revealed).collect::<Result<_, _>>()?;
        Ok((revealed, some(answer.grant)?))
    }

    /// Ends a grant: its requester, an approver or an admin.
    pub async fn close_grant(&self, id: &GrantId, notes: &str) -> Result<Grant, Error> {
        let request = wire::CloseGrantRequest {
            tenant: self.tenant(),
            grant_id: id.to_string(),
            notes: notes.to_owned(),
        };
        let answer = self
            .call_of_once(service, request, async |mut service, request| service.close_grant(request).await)
            .await?;
        some(answer.grant)
    }

    /// Says what was thought of a grant that is over: who neither asked nor approved. `notes`: 10 to 512 characters.
    pub async fn review_grant(&self, id: &GrantId, verdict: Verdict, notes: &str) -> Result<Grant, Error> {
        let request = wire::ReviewGrantRequest {
            tenant: self.tenant(),
            grant_id: id.to_string(),
            verdict: verdict.to_wire().into(),
            notes: notes.to_owned(),
        };
        let answer = self
            .call_of_once(service, request, async |mut service, request| service.review_grant(request).await)
            .await?;
        some(answer.grant)
    }
}

fn some(grant: Option<wire::Grant>) -> Result<Grant, Error> {
    Grant::from_wire(grant.ok_or_else(|| Error::bad_answer("no grant in it"))?)
}

fn revealed(result: wire::RevealResult) -> Result<Revealed, Error> {
    use wire::reveal_result::Outcome;
    let wire::RevealResult { token, data_class, outcome } = result;
    let value = match outcome.ok_or_else(no_outcome)? {
        Outcome::Value(value) => Ok(plaintext(&value)?),
        Outcome::Error(error) => Err(error.into()),
    };
    Ok(Revealed { token: grant::printable(token), class: grant::printable(data_class), value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn revealed_as(outcome: Option<wire::reveal_result::Outcome>) -> Result<Revealed, Error> {
        revealed(wire::RevealResult { token: "phi_dev_x".to_owned(), data_class: "ssn".to_owned(), outcome })
    }

    #[test]
    fn a_touch_is_bound_to_all_of_a_request() {
        let request = wire::ApproveGrantRequest {
            tenant: "demo".to_owned(),
            grant_id: "00".repeat(16),
            terms_hash: vec![7; 32].into(),
            notes: "n".to_owned(),
            second_factor: None,
        };
        let hash = |request: &wire::ApproveGrantRequest| Approving(request.clone()).hash();
        let same = hash(&request);
        assert_eq!(same, hash(&request));
        for other in [
            wire::ApproveGrantRequest { tenant: "demo2".to_owned(), ..request.clone() },
            wire::ApproveGrantRequest { grant_id: "01".repeat(16), ..request.clone() },
            wire::ApproveGrantRequest { terms_hash: vec![8; 32].into(), ..request.clone() },
            wire::ApproveGrantRequest { notes: String::new(), ..request.clone() },
        ] {
            assert_ne!(same, hash(&other), "{other:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_there_has_its_reason() {
        use wire::reveal_result::Outcome;
        let value = wire::Value { data: (&b"Ada"[..]).into(), padding: bytes::Bytes::default() };
        let good = revealed_as(Some(Outcome::Value(value))).unwrap();
        assert_eq!(good.value.unwrap().expose(), "Ada");
        let error =
            wire::ItemError { code: 9, reason: wire::Reason::GrantScope.into(), ..Default::default() };
        let bad = revealed_as(Some(Outcome::Error(error))).unwrap();
        assert_eq!(bad.value.err().unwrap().reason(), Reason::GrantScope);
        assert!(revealed_as(None).is_err());
    }
}
