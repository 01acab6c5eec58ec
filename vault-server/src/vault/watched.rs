//! Entries of requests for values, and what else is written in their commit because honeytokens are among those.
//!
//! Who touches a honeytoken is answered as for any other token, after one commit as for any other. The first touch of each raises
//! an alert and an alarm in that commit; later ones are only counted in the entry.

use std::collections::BTreeMap;

use futures::TryFutureExt as _;
use futures::future::Either;

use crate::access::{AlertKind, Honeytoken, OpenAction, Permit};
use crate::audit::{Actor, AuditAction, Beside, Draft, Item, LogError, Receipt};
use crate::domain::{TenantId, Token};
use crate::store::Write;

use super::{Context, Problem, Refused, Vault};

/// How often a request is written against others that touch the same honeytokens for the first time.
const ATTEMPTS: usize = 16;

/// The same commit, with a permit or without one.
enum Entry<'a, A> {
    Alone,
    BeforeOpen(&'a Permit<A>),
}

impl Vault {
    /// Writes the entry of a request that opens nothing.
    pub(super) async fn record_watched(
        &self,
        cx: &Context,
        draft: Draft,
        items: Vec<Item>,
    ) -> Result<(), Refused> {
        self.write_watched::<crate::crypto::Mask>(cx, draft, items, &Entry::Alone).await.map(drop)
    }

    /// Writes the entry of a request that opens values.
    pub(super) async fn before_open_watched<A: OpenAction>(
        &self,
        cx: &Context,
        draft: Draft,
        permit: &Permit<A>,
        items: Vec<Item>,
    ) -> Result<Receipt<A>, Refused> {
        let receipt = self.write_watched(cx, draft, items, &Entry::BeforeOpen(permit)).await?;
        receipt.ok_or_else(|| Problem::Internal.whole())
    }

    async fn write_watched<A: OpenAction>(
        &self,
        cx: &Context,
        draft: Draft,
        items: Vec<Item>,
        entry: &Entry<'_, A>,
    ) -> Result<Option<Receipt<A>>, Refused> {
        for _ in 0..ATTEMPTS {
            let touched = self.honeytokens_among(&draft, &items);
            if touched.is_empty() {
                return Ok(self.write_beside(draft, items, Beside::default(), entry).await?);
            }
            let (draft, beside, fresh) = self.tell(cx, draft.clone(), &items, &touched)?;
            match self.write_beside(draft, items.clone(), beside, entry).await {
                Ok(receipt) => {
                    self.parts.honeytokens.learn(&fresh);
                    return Ok(receipt);
                }
                // Another request touched one first, or one went: look again.
                Err(LogError::Conflict { .. }) => self.parts.honeytokens.refresh(&fresh).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    fn write_beside<A: OpenAction>(
        &self,
        draft: Draft,
        items: Vec<Item>,
        beside: Beside,
        entry: &Entry<'_, A>,
    ) -> impl Future<Output = Result<Option<Receipt<A>>, LogError>> + Send {
        let log = &self.parts.log;
        match entry {
            Entry::Alone => Either::Left(log.commit_with(draft, items, beside).map_ok(|_| None)),
            Entry::BeforeOpen(permit) => {
                Either::Right(log.before_open_with(draft, permit, items, beside).map_ok(Some))
            }
        }
    }

    /// The honeytokens that a request is about. To describe or to erase one is no touch: it tells nothing of a value.
    pub(super) fn honeytokens_among(&self, draft: &Draft, items: &[Item]) -> Vec<Honeytoken> {
        match draft.action {
            AuditAction::Detokenize | AuditAction::Mask | AuditAction::Find => {
                self.parts.honeytokens.among(items.iter().filter_map(|item| item.token))
            }
            _ => Vec::new(),
        }
    }

    /// The entry with the number of honeytokens in it, what is written beside it, and those that are touched for the first
    /// time, as they are then.
    pub(super) fn tell(
        &self,
        cx: &Context,
        mut draft: Draft,
        items: &[Item],
        touched: &[Honeytoken],
    ) -> Result<(Draft, Beside, Vec<Honeytoken>), Refused> {
        // That a token is another tenant's honeytoken is that tenant's business.
        let own = touched.iter().filter(|touched| Some(&touched.tenant) == draft.tenant.as_ref()).count();
        if own > 0 {
            draft.details.push(("honeytoken", own.to_string()));
        }
        let (now, by) = (self.parts.clock.now(), &cx.caller.principal.id);
        let fresh = touched.iter().filter(|honeytoken| honeytoken.touched.is_none());
        let fresh: Vec<_> = fresh.map(|honeytoken| honeytoken.touched(now, by.clone())).collect();
        let mut tenants: BTreeMap<&TenantId, Vec<Token>> = BTreeMap::new();
        for honeytoken in &fresh {
            tenants.entry(&honeytoken.tenant).or_default().push(honeytoken.token);
        }
        let mut beside = Beside::default();
        beside.writes.extend(fresh.iter().map(|honeytoken| Write::PutEntity(honeytoken.entity())));
        for (tenant, tokens) in tenants {
            let kind = AlertKind::HoneytokenTouched;
            let mut details = attribution(cx, draft.action);
            details.push(("count", tokens.len().to_string()));
            beside.writes.push(self.alert(cx, kind, tenant.clone(), None, details.clone())?);
            let mut alarm = Draft::new(cx.request, AuditAction::Alarm, Actor::caller(&cx.caller, tenant));
            alarm.tenant = Some(tenant.clone());
            alarm.details.push(("alarm", kind.as_str().to_owned()));
            alarm
                .details
                .extend(details.into_iter().filter(|(name, _)| *name == "action" || *name == "count"));
            let items =
                tokens.iter().filter_map(|token| items.iter().find(|item| item.token == Some(*token)));
            beside.entries.push((alarm, items.cloned().collect()));
        }
        Ok((draft, beside, fresh))
    }
}

/// Who it was, as far as it is known.
pub(super) fn attribution(cx: &Context, action: AuditAction) -> Vec<(&'static str, String)> {
    let action = action.as_str_name().trim_start_matches("ACTION_").to_ascii_lowercase();
    let mut details = vec![("action", action), ("credential", hex::encode(cx.caller.credential))];
    details.extend(cx.caller.source.map(|source| ("source", source.to_string())));
    details
}
