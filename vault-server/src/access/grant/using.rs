//! Proof that a grant may be used, and what becomes of it by being used.

use std::time::Duration;

use super::{Grant, GrantRefusal, GrantScope, GrantState, Terms};
use crate::access::{Caller, GrantSeen};
use crate::domain::{ClassName, GrantId, Record, TenantId, Timestamp};

/// A grant was looked at for a caller: it is its own, it is in force, values are left. Only [`Grant::use_by`] makes one.
#[must_use = "the proof that a grant may be used is there to be used"]
pub struct GrantUse {
    id: GrantId,
    tenant: TenantId,
    scope: GrantScope,
    classes: Vec<ClassName>,
    approvals: u32,
    left: u32,
    at: Timestamp,
}

impl GrantUse {
    /// Which grant.
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// What policies see of it.
    pub fn seen(&self) -> GrantSeen {
        GrantSeen { approvals: self.approvals }
    }

    /// How many values are left.
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// Whether the grant is about this record.
    pub fn covers(&self, record: &Record) -> bool {
        let in_scope = match &self.scope {
            GrantScope::Tokens(tokens) => tokens.contains(&record.token),
            GrantScope::Subject(names) => record.subject.is_some_and(|subject| names.contains(&subject)),
        };
        in_scope && record.tenant == self.tenant && self.classes.contains(&record.class)
    }
}

impl Grant {
    /// Whether a caller may see values under it, now.
    pub fn use_by(
        &self,
        caller: &Caller,
        clock: Timestamp,
        known: Duration,
    ) -> Result<GrantUse, GrantRefusal> {
        let Terms { requester, .. } = &self.terms;
        if requester.principal != caller.principal.id {
            return Err(GrantRefusal::Another);
        }
        if requester.credential != caller.credential {
            return Err(GrantRefusal::Credential);
        }
        if self.left() == 0 {
            return Err(GrantRefusal::UsedUp);
        }
        if self.state != GrantState::Active || self.due(clock, known).is_some() {
            return Err(GrantRefusal::State);
        }
        let hash = self.terms.hash();
        let approvals = self.approvals.iter().filter(|approval| approval.terms == hash).count();
        if approvals != self.approvals.len() || (approvals as u64) < u64::from(self.terms.approvals_needed) {
            return Err(GrantRefusal::Changed);
        }
        Ok(GrantUse {
            id: self.terms.id,
            tenant: self.terms.tenant.clone(),
            scope: self.terms.scope.clone(),
            classes: self.terms.classes.clone(),
            approvals: u32::try_from(approvals).map_err(|_| GrantRefusal::Changed)?,
            left: self.left(),
            at: self.now(clock),
        })
    }

    /// With so many more values seen.
    pub fn used(&self, using: &GrantUse, values: usize) -> Result<Self, GrantRefusal> {
        let more = u32::try_from(values).map_err(|_| GrantRefusal::UsedUp)?;
        if self.terms.id != using.id || self.state != GrantState::Active {
            return Err(GrantRefusal::State);
        }
        if more > self.left() {
            return Err(GrantRefusal::UsedUp);
        }
        Ok(Self {
            seen: self.seen + more,
            first_used: Some(self.first_used.unwrap_or(using.at)),
            changed: self.changed.max(using.at),
            ..self.clone()
        })
    }
}
