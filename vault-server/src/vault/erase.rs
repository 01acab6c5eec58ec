//! Erases values: a record keeps its token and loses everything that could bring the value back.

use crate::access::Action;
use crate::audit::{AuditAction, Draft, Item, LogError, Outcome};
use crate::crypto;
use crate::domain::{Body, Record, SubjectId, SubjectRef, TenantId, Timestamp, Token};
use crate::store::Write;

use super::{Context, Note, ParsedToken, Problem, Refused, Vault, decision, denied_tokens, whole};

/// What to erase.
pub enum EraseTarget {
    /// These tokens, at least one.
    Tokens(Vec<ParsedToken>),
    /// All tokens of a person.
    Subject(SubjectId),
}

/// What became of one token.
pub struct Erased {
    /// The token, if it was one.
    pub token: Option<Token>,
    /// Whether its value was there until now.
    pub outcome: Result<bool, Problem>,
}

/// How many records one commit erases.
const CHUNK: usize = 1000;

impl Vault {
    /// Erases values, item by item.
    pub async fn erase(
        &self,
        cx: &Context,
        asked_tenant: &str,
        target: Result<EraseTarget, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Vec<Erased>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Erase, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Erase, &tenant);
        let checked = target.and_then(|target| Ok((target, note?)));
        let (target, note) = match checked {
            Ok(checked) => checked,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        draft.reason = note.reason;
        draft.ticket = note.ticket;
        let denied = || match &target {
            EraseTarget::Tokens(tokens) => denied_tokens(tokens),
            EraseTarget::Subject(_) => Vec::new(),
        };
        self.allow(cx, &mut draft, &tenant, whole(Action::Erase, None), denied).await?;
        match target {
            EraseTarget::Tokens(tokens) => self.erase_tokens(cx, &tenant, &draft, tokens).await,
            EraseTarget::Subject(subject) => self.erase_subject(cx, &tenant, draft, &subject).await,
        }
    }

    async fn erase_tokens(
        &self,
        cx: &Context,
        tenant: &TenantId,
        draft: &Draft,
        mut tokens: Vec<ParsedToken>,
    ) -> Result<Vec<Erased>, Refused> {
        let mut results = Vec::with_capacity(tokens.len());
        while !tokens.is_empty() {
            let rest = tokens.split_off(tokens.len().min(CHUNK));
            results.extend(self.erase_chunk(cx, tenant, draft, &tokens, None).await?);
            tokens = rest;
        }
        Ok(results)
    }

    /// All tokens of a person, under every version of the key that names people: also one that another instance has
    /// just made, and one that is made meanwhile.
    async fn erase_subject(
        &self,
        cx: &Context,
        tenant: &TenantId,
        mut draft: Draft,
        subject: &SubjectId,
    ) -> Result<Vec<Erased>, Refused> {
        let mut results = Vec::new();
        let mut names: Vec<SubjectRef> = Vec::new();
        loop {
            let keys = self.parts.keyring.index_keys_now(tenant).await?;
            let mut all = keys.iter().map(|key| crypto::subject_ref(key, subject));
            let Some(name) = all.find(|name| !names.contains(name)) else { break };
            names.push(name);
            let mut after = None;
            loop {
                let tokens = self.parts.store.tokens_of_subject(tenant, name, after, CHUNK).await?;
                let Some(last) = tokens.last().copied() else { break };
                after = Some(last);
                let parsed: Vec<ParsedToken> = tokens.into_iter().map(Ok).collect();
                let chunk = self.erase_chunk(cx, tenant, &draft, &parsed, Some(name)).await?;
                results.extend(chunk.into_iter().map(unnamed_if_hidden));
            }
        }
        if results.is_empty() {
            // Nothing was there: that it was asked for is on record all the same.
            draft.details.push(("matches", "0".to_owned()));
            let items = names
                .into_iter()
                .map(|name| Item { subject: Some(name), outcome: Outcome::Ok, ..Item::invalid() })
                .collect();
            self.parts.log.record(draft, items).await?;
        }
        Ok(results)
    }

    async fn erase_chunk(
        &self,
        cx: &Context,
        tenant: &TenantId,
        draft: &Draft,
        tokens: &[ParsedToken],
        of: Option<SubjectRef>,
    ) -> Result<Vec<Erased>, Refused> {
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            if let Some(results) = self.try_erase(cx, tenant, draft.clone(), tokens, of).await? {
                return Ok(results);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// `None`: a record changed in between; look again.
    async fn try_erase(
        &self,
        cx: &Context,
        tenant: &TenantId,
        mut draft: Draft,
        tokens: &[ParsedToken],
        of: Option<SubjectRef>,
    ) -> Result<Option<Vec<Erased>>, Refused> {
        let lookups = self.look_up(tokens).await?;
        let now = self.parts.clock.now();
        let mut writes: Vec<Write> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut items = Vec::with_capacity(tokens.len());
        let mut results = Vec::with_capacity(tokens.len());
        for (token, lookup) in tokens.iter().zip(lookups) {
            let (outcome, item) = match token {
                Err(problem) => (Err(problem.clone()), Item::invalid()),
                Ok(token) => match self.visible(cx, tenant, Action::Erase, lookup, &mut draft.policies) {
                    Err((problem, outcome)) => (Err(problem), Item::of_token(*token, outcome)),
                    // An index row that leads to somebody else's record erases nothing.
                    Ok(record) if of.is_some() && record.subject != of => {
                        (Err(Problem::RecordCorrupt), Item::of_token(*token, Outcome::Corrupt))
                    }
                    Ok(record) => {
                        let item = Item::of_record(&record, Outcome::Ok);
                        let there = record.key_id().is_some() && seen.insert(record.token);
                        if there {
                            let next = record.revision.checked_add(1);
                            let next = next.ok_or_else(|| Problem::RecordCorrupt.whole())?;
                            writes.push(Write::Replace(erased(*record, now, next)));
                        }
                        (Ok(there), item)
                    }
                },
            };
            results.push(Erased { token: token.as_ref().ok().copied(), outcome });
            items.push(item);
        }
        draft.decision = decision(&items);
        match self.parts.log.commit(draft, items, writes).await {
            Ok(_) => Ok(Some(results)),
            Err(LogError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn erased(record: Record, at: Timestamp, revision: u32) -> Record {
    Record { index: None, body: Body::Erased { at }, revision, ..record }
}

/// Whoever erases a person learns that something could not be erased, but not the names of tokens that policy hides.
fn unnamed_if_hidden(erased: Erased) -> Erased {
    match erased.outcome {
        Err(Problem::NotFound) => Erased { token: None, outcome: Err(Problem::ActionNotAllowed) },
        _ => erased,
    }
}
