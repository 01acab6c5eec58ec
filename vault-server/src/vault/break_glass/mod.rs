//! Breaking the glass: a grant is asked for, approved by others, used, ended and reviewed. What may come after what is the
//! grant's own to say ([`Grant`]); here each step is one commit of the grant's row, the entry that says so, and the alert.
//!
//! Rows beside the grants themselves, so that nothing needs to look through all grants that ever were:
//!
//! * a [`desk`] for each requester, with its grants that are not settled: who changes a desk was alone with it, so that
//!   "at most so many" holds across instances;
//! * a [`pending`] row for each grant that waits or is in force: what the sweep looks at.

mod answer;
mod desk;
mod end;
mod known;
mod pending;
mod read;
mod request;
mod reveal;
mod review;
mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::access::{AlertKind, Grant, GrantRefusal, GrantState, PrincipalKind};
use crate::audit::{Draft, Item};
use crate::domain::{GrantId, TenantId};
use crate::store::Write;

use super::{Context, Problem, Refused, Touch, Vault};

pub use answer::{Approving, Denying};
pub use end::GrantDue;
pub use read::Listing;
pub use request::{AskedScope, GrantAsked};
pub use reveal::Revealed;
pub use review::Reviewing;
pub use rules::{GrantRules, TenantRules};

pub(super) use known::KnownGrants;

/// How often a change is tried against others who change the same grant. Each time it does not come to pass, another did:
/// and there are few things to be done with a grant but to see its values.
const ATTEMPTS: u32 = 16;

/// A grant as it was read.
struct Seen {
    grant: Grant,
    revision: u64,
}

/// What goes with a change of a grant, in the same commit.
#[derive(Clone, Default)]
struct Beside {
    /// Rows and alerts.
    writes: Vec<Write>,
    /// What uses the second factor up.
    touch: Vec<Write>,
}

impl Beside {
    fn of(writes: Vec<Write>) -> Self {
        Self { writes, touch: Vec::new() }
    }
}

impl Vault {
    /// A grant as it is now: what is over by now is so on record, before anybody is told.
    async fn look(&self, tenant: &TenantId, id: GrantId) -> Result<Option<Seen>, Refused> {
        for _ in 0..ATTEMPTS {
            let Some(seen) = self.read_grant(tenant, id).await? else { return Ok(None) };
            match self.due(&seen.grant) {
                None => return Ok(Some(seen)),
                Some(over) => {
                    if let Some(seen) = self.put_over(&over, seen.revision, None).await? {
                        return Ok(Some(seen));
                    }
                }
            }
        }
        Err(Problem::Overloaded.whole())
    }

    async fn read_grant(&self, tenant: &TenantId, id: GrantId) -> Result<Option<Seen>, Refused> {
        let Some(entity) = self.parts.store.entity(&Grant::place(tenant, id)).await? else { return Ok(None) };
        let grant = Grant::read(&entity).map_err(|_| self.corrupt(id))?;
        Ok(Some(Seen { grant, revision: entity.revision }))
    }

    #[expect(clippy::unused_self, reason = "one of a kind with the others")]
    fn corrupt(&self, id: GrantId) -> Refused {
        tracing::error!(grant = %id, "the row of a grant is not what was written");
        Problem::RecordCorrupt.whole()
    }

    /// The grant as it is over, if its time has come.
    fn due(&self, grant: &Grant) -> Option<Grant> {
        grant.due(self.parts.clock.now(), self.grants_known.for_how_long(grant))
    }

    /// The grant that a request names. `None` is refused as if it were another's.
    async fn look_for(&self, draft: &mut Draft, tenant: &TenantId, id: GrantId) -> Result<Seen, Refused> {
        draft.grant = Some(id);
        if let Some(seen) = self.look(tenant, id).await? {
            return Ok(seen);
        }
        let refused = Problem::NotFound.at("grant_id");
        Err(self.log_refusal(draft.clone(), Vec::new(), refused).await)
    }

    /// Writes a grant, its entry and what goes with it. `None`: somebody else was faster; look again.
    async fn put_grant(
        &self,
        draft: Draft,
        items: Vec<Item>,
        (grant, revision): (Grant, Option<u64>),
        beside: Beside,
    ) -> Result<Option<Seen>, Refused> {
        let revision = revision.map_or(0, |revision| revision + 1);
        let entity = grant.entity(revision).ok_or_else(|| Problem::Internal.whole())?;
        let mut writes = vec![Write::PutEntity(entity)];
        writes.extend(beside.writes);
        let put = self.commit_touched(draft, items, writes, beside.touch).await?;
        Ok(put.then_some(Seen { grant, revision }))
    }

    /// What can't be done with a grant: on record with the true cause.
    async fn not_with_grant(&self, mut draft: Draft, items: Vec<Item>, refusal: GrantRefusal) -> Refused {
        draft.details.push(("why", refusal.as_str().to_owned()));
        let refused = match refusal {
            GrantRefusal::State | GrantRefusal::Credential | GrantRefusal::UsedUp => {
                Problem::GrantState.whole()
            }
            GrantRefusal::Another => Problem::NotFound.at("grant_id"),
            GrantRefusal::SecondPerson => Problem::SecondPerson.whole(),
            GrantRefusal::Changed => Problem::GrantChanged.at("terms_hash"),
        };
        self.log_refusal(draft, items, refused).await
    }

    /// Refuses a program where a person is needed.
    async fn person(&self, cx: &Context, draft: &Draft) -> Result<(), Refused> {
        if cx.caller.principal.kind == PrincipalKind::Human {
            return Ok(());
        }
        Err(self.log_refusal(draft.clone(), Vec::new(), Problem::SecondPerson.whole()).await)
    }

    fn grant_alert(&self, cx: &Context, kind: AlertKind, grant: &Grant) -> Result<Write, Refused> {
        let terms = grant.terms();
        self.alert(cx, kind, terms.tenant.clone(), Some(terms.id), told(grant))
    }
}

/// What receivers of alerts are told of a grant: nothing that a person wrote, and no token.
fn told(grant: &Grant) -> Vec<(&'static str, String)> {
    let terms = grant.terms();
    let mut details = vec![
        ("requester", terms.requester.principal.to_string()),
        ("state", grant.state().as_str().to_owned()),
        ("reason_code", terms.reason_code.clone()),
        ("data_classes", classes(grant)),
        ("about", about(grant)),
        ("values_allowed", terms.values.to_string()),
        ("values_seen", grant.seen().to_string()),
        ("duration_s", terms.duration.to_string()),
        ("approvals", format!("{}/{}", grant.approvals().len(), terms.approvals_needed)),
    ];
    if let Some(end) = grant.end() {
        details.push(("ended", end.how.as_str().to_owned()));
    }
    if let Some(review) = grant.reviewed() {
        details.push(("verdict", review.verdict.as_str().to_owned()));
    }
    details
}

fn classes(grant: &Grant) -> String {
    grant.terms().classes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn about(grant: &Grant) -> String {
    match &grant.terms().scope {
        crate::access::GrantScope::Tokens(tokens) => format!("{} tokens", tokens.len()),
        crate::access::GrantScope::Subject(_) => "a person".to_owned(),
    }
}

/// Whether values were seen under it: what the log calls an emergency override.
fn stopped(grant: &Grant) -> Option<(&'static str, String)> {
    let over = !grant.state().is_open() && grant.state() != GrantState::Reviewed;
    (over && grant.first_used().is_some()).then(|| ("emergency_override", "stopped".to_owned()))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
