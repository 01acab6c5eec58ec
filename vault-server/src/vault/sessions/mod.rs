//! Sessions of people, and who calls at all.
//!
//! ```text
//! connection, bearer token --Vault::identify--> Credential     nothing is refused yet: a bad token is a credential, too
//! Credential --Vault::admit-------------------> Caller         for each request, and for each message of a stream
//! ```
//!
//! * A session is a row ([`SessionRow`]). What an instance knows of it is a second old at most, so one that is closed is
//!   over everywhere within a second, and one whose principal is disabled as soon as the principal is.
//! * When it ends goes by the clock, and by the steady clock where that was set back: nothing prolongs a session.
//! * Its last use is noted at most once a minute, and idle is judged by the note: so a session may end up to a minute
//!   early, and never late.

mod cache;
mod open;
mod refusals;
mod steady;
mod sweep;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::access::oidc::{AccessToken, Issuers};
use crate::access::{
    Caller, Credential, CredentialKind, SessionProof, SessionRow, SessionRules, SessionToken, Unauthenticated,
};
use crate::audit::AuditAction;
use crate::domain::Timestamp;
use crate::store::Write;

use self::cache::{Cache, Kept};
use self::refusals::Refusals;
use self::steady::Steady;
use super::{Problem, Vault};

pub use open::Opened as OpenedSession;

/// What people need beside the rest. Without it nobody comes but by certificates.
pub struct Sessions {
    issuers: Issuers,
    rules: SessionRules,
    cache: Cache,
    steady: Steady,
    refusals: Refusals,
}

impl Sessions {
    /// None open that is known here.
    pub fn new(issuers: Issuers, rules: SessionRules) -> Self {
        Self {
            issuers,
            rules,
            cache: Cache::default(),
            steady: Steady::default(),
            refusals: Refusals::default(),
        }
    }

    async fn shown_by_provider(
        &self,
        connection: &Credential,
        token: &AccessToken,
        now: Timestamp,
    ) -> Credential {
        match self.issuers.verify(token, now, connection.shown().as_ref()).await {
            Ok(verified) => {
                let identity = verified.identity();
                let kind = CredentialKind::AccessToken(Arc::new(verified));
                connection.with_token(token.fingerprint(), identity, kind)
            }
            Err(fault) => connection.refused(fault.as_str()),
        }
    }
}

/// The token that came with a request.
pub enum Bearer {
    /// None.
    Nothing,
    /// More than one, or something else than a token.
    Malformed,
    /// A session's.
    Session(SessionToken),
    /// An identity provider's.
    Access(AccessToken),
}

/// Sessions that are looked for in the store at once, on an instance; those that it knows need none.
static LOOKS: Semaphore = Semaphore::const_new(32);

/// Why a credential gives no caller: for the log, and for the caller.
pub(super) struct NoCaller {
    pub(super) cause: &'static str,
    pub(super) problem: Problem,
}

impl NoCaller {
    fn session(cause: &'static str) -> Self {
        Self { cause, problem: Problem::SessionInvalid(cause) }
    }

    /// Whom the access layer does not let in; the caller is told of `problem`, if it is not the vault's own trouble.
    fn nobody(why: Unauthenticated, problem: Problem) -> Self {
        let problem = if why == Unauthenticated::Stale { Problem::StoreUnavailable } else { problem };
        Self { cause: why.as_str(), problem }
    }

    fn unavailable(problem: Problem) -> Self {
        Self { cause: problem.cause(), problem }
    }
}

impl Vault {
    /// What a request shows: its token if it has one, and otherwise what its connection has shown. Both together: the token
    /// speaks, and the certificate is what it may be bound to.
    pub async fn identify(&self, connection: &Arc<Credential>, bearer: Bearer) -> Arc<Credential> {
        match (&self.parts.sessions, bearer) {
            (None, _) | (_, Bearer::Nothing) => Arc::clone(connection),
            (Some(_), Bearer::Malformed) => Arc::new(connection.refused("bearer_malformed")),
            // Boxed, as in `admit`: services show their certificate alone, and carry no place for these.
            (Some(sessions), Bearer::Access(token)) => {
                let now = sessions.steady.now(self.parts.clock.now());
                Arc::new(Box::pin(sessions.shown_by_provider(connection, &token, now)).await)
            }
            (Some(sessions), Bearer::Session(token)) => {
                Arc::new(Box::pin(self.shown_by_session(sessions, connection, &token)).await)
            }
        }
    }

    async fn shown_by_session(
        &self,
        sessions: &Sessions,
        connection: &Credential,
        token: &SessionToken,
    ) -> Credential {
        let proof = SessionProof { name: token.name(), certificate: connection.shown(), factors: Vec::new() };
        match self.find_session(sessions, &proof).await {
            Ok(kept) => {
                let name = proof.name;
                let proof = SessionProof { factors: kept.factors.clone(), ..proof };
                let identity = kept.session.identity.clone();
                connection.with_token(name, identity, CredentialKind::Session(Arc::new(proof)))
            }
            Err(NoCaller { problem: Problem::SessionInvalid(cause), .. }) => connection.refused(cause),
            Err(_) => Credential { kind: CredentialKind::Unknown, ..connection.clone() },
        }
    }

    /// Who calls.
    pub(super) async fn admit(
        &self,
        credential: &Credential,
        action: AuditAction,
    ) -> Result<Caller, NoCaller> {
        let now = self.parts.clock.now();
        let authenticate = || self.parts.access.authenticate(credential, now);
        match (&credential.kind, &self.parts.sessions) {
            (CredentialKind::Certificate, _) => {
                authenticate().map_err(|why| NoCaller::nobody(why, Problem::PrincipalUnknown))
            }
            (CredentialKind::Nothing, _) => Err(NoCaller::session("credential_missing")),
            (CredentialKind::Refused(cause), _) => Err(NoCaller::session(cause)),
            (CredentialKind::Unknown, _) => Err(NoCaller::unavailable(Problem::StoreUnavailable)),
            (CredentialKind::AccessToken(_) | CredentialKind::Session(_), None) => {
                Err(NoCaller::session("sessions_not_configured"))
            }
            (CredentialKind::AccessToken(_), Some(_)) if action != AuditAction::SessionOpen => {
                Err(NoCaller::session("token_not_a_session"))
            }
            (CredentialKind::AccessToken(_), Some(_)) => {
                authenticate().map_err(|why| NoCaller::nobody(why, Problem::SessionInvalid(why.as_str())))
            }
            (CredentialKind::Session(proof), Some(sessions)) => {
                Box::pin(self.admit_session(sessions, proof, authenticate)).await
            }
        }
    }

    async fn admit_session(
        &self,
        sessions: &Sessions,
        proof: &SessionProof,
        authenticate: impl Fn() -> Result<Caller, Unauthenticated>,
    ) -> Result<Caller, NoCaller> {
        let kept = self.find_session(sessions, proof).await?;
        let caller =
            authenticate().map_err(|why| NoCaller::nobody(why, Problem::SessionInvalid(why.as_str())))?;
        if caller.principal.id.as_str() != kept.session.principal {
            return Err(NoCaller::session("session_of_another"));
        }
        self.note_use(sessions, &proof.name, &kept).await;
        Ok(caller)
    }

    /// Whether a refusal may still be put on record now; how many were not, since the last that was. Who comes with a
    /// certificate always is: without one anybody on the network could fill the log.
    pub(super) fn may_record(&self, credential: &Credential) -> Option<u64> {
        match &self.parts.sessions {
            Some(sessions) if credential.shown().is_none() => sessions.refusals.take(),
            _ => Some(0),
        }
    }

    /// The session of that name, if it stands.
    async fn find_session(&self, sessions: &Sessions, proof: &SessionProof) -> Result<Arc<Kept>, NoCaller> {
        let kept = match sessions.cache.get(&proof.name) {
            Some(kept) => kept,
            None => self.read_session(sessions, &proof.name).await?,
        };
        let now = sessions.steady.now(self.parts.clock.now());
        if let Some(cause) = kept.session.over(now, &sessions.rules) {
            return Err(NoCaller::session(cause));
        }
        if !kept.session.fits(proof.certificate.as_ref()) {
            return Err(NoCaller::session("session_certificate"));
        }
        Ok(kept)
    }

    async fn read_session(&self, sessions: &Sessions, name: &[u8; 32]) -> Result<Arc<Kept>, NoCaller> {
        let place = SessionRow::session(name).ok_or(NoCaller::unavailable(Problem::Internal))?;
        // Anybody can make up names of sessions: they don't get all of the store's attention.
        let _turn = LOOKS.try_acquire().map_err(|_| NoCaller::unavailable(Problem::Overloaded))?;
        let read = cache::now();
        let entity = self.parts.store.entity(&place).await.map_err(|error| {
            tracing::warn!(%error, "a session can't be read");
            NoCaller::unavailable(Problem::StoreUnavailable)
        })?;
        let entity = entity.ok_or(NoCaller::session("session_unknown"))?;
        let Some(SessionRow::Session(session)) = SessionRow::read(&entity) else {
            return Err(NoCaller::unavailable(Problem::RecordCorrupt));
        };
        let kept = Arc::new(Kept::new(session, entity.revision));
        sessions.cache.put(*name, Arc::clone(&kept), read);
        Ok(kept)
    }

    /// Notes that a session is used. That somebody else did so, or closed it meanwhile, is found with the next look.
    async fn note_use(&self, sessions: &Sessions, name: &[u8; 32], kept: &Kept) {
        let now = sessions.steady.now(self.parts.clock.now());
        if !kept.session.is_stale(now, &sessions.rules) || !kept.begin_note() {
            return;
        }
        let Some(place) = SessionRow::session(name) else { return };
        let mut session = kept.session.clone();
        session.used_us = session.used_us.max(now.0);
        let row = SessionRow::Session(session).entity(place, kept.revision + 1);
        if let Err(error) = self.parts.log.write(vec![Write::PutEntity(row)]).await {
            tracing::debug!(%error, "the use of a session was not noted");
        }
        sessions.cache.forget(name);
    }
}
