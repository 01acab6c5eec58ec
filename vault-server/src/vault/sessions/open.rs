//! Opens and closes sessions.

use std::sync::Arc;

use crate::access::oidc::Verified;
use crate::access::{
    Credential, CredentialKind, PrincipalKind, Session, SessionList, SessionProof, SessionRow, SessionToken,
    UsedToken,
};
use crate::audit::{Actor, AuditAction, Draft, LogError};
use crate::domain::Timestamp;
use crate::store::Write;

use super::super::{Context, Problem, Refused, Vault};
use super::Sessions;

/// How often it is tried against others of the same principal.
const ATTEMPTS: usize = 16;

/// A session that was opened.
pub struct Opened {
    /// What speaks for the person from now on.
    pub token: SessionToken,
    /// When it ends at the latest.
    pub ends: Timestamp,
    /// Without a call for so long it ends, too: in seconds.
    pub idle_s: u32,
}

/// What is there of a principal's sessions before one more is opened.
struct Before {
    /// Those that stand, with their names and revisions, the one that was not used for longest first.
    standing: Vec<([u8; 32], Session, u64)>,
    /// The revision of the list.
    list: Option<u64>,
}

impl Vault {
    /// Opens a session for the person whose access token came. One more than a principal may have closes the one that was
    /// not used for longest.
    pub async fn open_session(&self, cx: &Context, credential: &Credential) -> Result<Opened, Refused> {
        let mut draft = Draft::new(cx.request, AuditAction::SessionOpen, Actor::caller_of_vault(&cx.caller));
        let (Some(sessions), CredentialKind::AccessToken(verified)) =
            (&self.parts.sessions, &credential.kind)
        else {
            return Err(self.refuse_session(draft, "token_missing").await);
        };
        draft.details = vec![("issuer", verified.issuer.clone()), ("token", hex::encode(verified.id))];
        if cx.caller.principal.kind != PrincipalKind::Human {
            return Err(self.refuse_session(draft, "principal_not_a_person").await);
        }
        for _ in 0..ATTEMPTS {
            if verified.single_use && self.is_used(verified).await? {
                return Err(self.refuse_session(draft, "token_used").await);
            }
            let token = SessionToken::random().ok_or_else(|| Problem::Internal.whole())?;
            let now = sessions.steady.now(self.parts.clock.now());
            let before = self.before(cx, sessions, now).await?;
            let session = new_session(cx, sessions, verified, now);
            let ends = Timestamp(session.ends_us);
            let mut draft = draft.clone();
            draft.details.push(("session", hex::encode(token.name())));
            draft.details.push(("ends_us", ends.0.to_string()));
            let (writes, closed) = writes(cx, sessions, verified, &token, session, before, now)
                .ok_or_else(|| Problem::Internal.whole())?;
            if !closed.is_empty() {
                draft.details.push(("closed", closed.iter().map(hex::encode).collect::<Vec<_>>().join(" ")));
            }
            match self.parts.log.commit(draft, Vec::new(), writes).await {
                Ok(_) => {
                    for name in &closed {
                        sessions.cache.forget(name);
                    }
                    let idle_s = u32::try_from(sessions.rules.idle.as_secs()).unwrap_or(u32::MAX);
                    return Ok(Opened { token, ends, idle_s });
                }
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.log_refusal(draft, Vec::new(), Problem::Overloaded.whole()).await)
    }

    /// Ends the caller's session, everywhere within a second.
    pub async fn close_session(&self, cx: &Context, credential: &Credential) -> Result<(), Refused> {
        let mut draft = Draft::new(cx.request, AuditAction::SessionClose, Actor::caller_of_vault(&cx.caller));
        let (Some(sessions), CredentialKind::Session(proof)) = (&self.parts.sessions, &credential.kind)
        else {
            return Err(self.refuse_session(draft, "session_missing").await);
        };
        let proof: &Arc<SessionProof> = proof;
        draft.details = vec![("session", hex::encode(proof.name))];
        let place = SessionRow::session(&proof.name).ok_or_else(|| Problem::Internal.whole())?;
        for _ in 0..ATTEMPTS {
            let entity = self.parts.store.entity(&place).await?;
            let row = entity.as_ref().and_then(SessionRow::read);
            let (Some(entity), Some(SessionRow::Session(mut session))) = (entity, row) else {
                return Err(self.refuse_session(draft, "session_unknown").await);
            };
            if session.closed_us > 0 {
                return Err(self.refuse_session(draft, "session_closed").await);
            }
            session.closed_us = sessions.steady.now(self.parts.clock.now()).0.max(1);
            let row = SessionRow::Session(session).entity(place.clone(), entity.revision + 1);
            let closed = self.parts.log.commit(draft.clone(), Vec::new(), vec![Write::PutEntity(row)]).await;
            sessions.cache.forget(&proof.name);
            match closed {
                Ok(_) => return Ok(()),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.log_refusal(draft, Vec::new(), Problem::Overloaded.whole()).await)
    }

    async fn refuse_session(&self, draft: Draft, cause: &'static str) -> Refused {
        self.log_refusal(draft, Vec::new(), Problem::SessionInvalid(cause).whole()).await
    }

    async fn is_used(&self, verified: &Verified) -> Result<bool, Refused> {
        let place = SessionRow::used(&verified.id).ok_or_else(|| Problem::Internal.whole())?;
        Ok(self.parts.store.entity(&place).await?.is_some())
    }

    async fn before(&self, cx: &Context, sessions: &Sessions, now: Timestamp) -> Result<Before, Refused> {
        let store = &self.parts.store;
        let place = SessionRow::list(&cx.caller.principal.id).ok_or_else(|| Problem::Internal.whole())?;
        let Some(entity) = store.entity(&place).await? else {
            return Ok(Before { standing: Vec::new(), list: None });
        };
        let Some(SessionRow::List(list)) = SessionRow::read(&entity) else {
            return Err(Problem::RecordCorrupt.whole());
        };
        let mut standing = Vec::new();
        for name in &list.sessions {
            let Ok(name) = <[u8; 32]>::try_from(name.as_slice()) else { continue };
            let Some(place) = SessionRow::session(&name) else { continue };
            let Some(row) = store.entity(&place).await? else { continue };
            if let Some(SessionRow::Session(session)) = SessionRow::read(&row)
                && session.over(now, &sessions.rules).is_none()
            {
                standing.push((name, session, row.revision));
            }
        }
        standing.sort_by_key(|(_, session, _)| session.used_us);
        Ok(Before { standing, list: Some(entity.revision) })
    }
}

fn new_session(cx: &Context, sessions: &Sessions, verified: &Verified, now: Timestamp) -> Session {
    let lifetime = u64::try_from(sessions.rules.lifetime.as_micros()).unwrap_or(u64::MAX);
    let bound = verified.certificate.map(|certificate| certificate.to_vec()).unwrap_or_default();
    let mut factors: Vec<_> = verified.factors.iter().map(ToString::to_string).collect();
    if !bound.is_empty() {
        factors.push("mtls".to_owned());
    }
    Session {
        principal: cx.caller.principal.id.to_string(),
        identity: verified.identity(),
        factors,
        opened_us: now.0,
        used_us: now.0,
        ends_us: now.0.saturating_add(lifetime),
        certificate: bound,
        token: verified.id.to_vec(),
        closed_us: 0,
    }
}

/// What is written together, and the names of the sessions that are closed for it.
fn writes(
    cx: &Context,
    sessions: &Sessions,
    verified: &Verified,
    token: &SessionToken,
    session: Session,
    mut before: Before,
    now: Timestamp,
) -> Option<(Vec<Write>, Vec<[u8; 32]>)> {
    let (mut writes, mut closed) = (Vec::new(), Vec::new());
    let too_many = (before.standing.len() + 1).saturating_sub(sessions.rules.per_principal);
    for (name, mut oldest, revision) in before.standing.drain(..too_many.min(before.standing.len())) {
        oldest.closed_us = now.0.max(1);
        let row = SessionRow::Session(oldest).entity(SessionRow::session(&name)?, revision + 1);
        writes.push(Write::PutEntity(row));
        closed.push(name);
    }
    let mut names: Vec<_> = before.standing.iter().map(|(name, ..)| name.to_vec()).collect();
    names.push(token.name().to_vec());
    let list = SessionRow::List(SessionList { sessions: names });
    let place = SessionRow::list(&cx.caller.principal.id)?;
    writes.push(Write::PutEntity(list.entity(place, before.list.map_or(0, |revision| revision + 1))));
    let row = SessionRow::Session(session).entity(SessionRow::session(&token.name())?, 0);
    writes.push(Write::PutEntity(row));
    if verified.single_use {
        let used = SessionRow::Used(UsedToken { expires_us: verified.expires.0 });
        writes.push(Write::PutEntity(used.entity(SessionRow::used(&verified.id)?, 0)));
    }
    Some((writes, closed))
}
