//! Who may call: for admins, who provision principals, and for everybody about itself.
//!
//! ```no_run
//! use vault_client::principals::{Kind, NewPrincipal};
//! use vault_client::keys::Note;
//!
//! # async fn example(vault: vault_client::Client) -> Result<(), vault_client::Error> {
//! let mut ann = NewPrincipal::new("ann", Kind::Human, "spiffe://example.org/people/ann");
//! ann.roles.insert("st-mary".to_owned(), vec!["oncall".to_owned()]);
//! let note = Note { reason: "joined the on-call rota".to_owned(), ticket: "IAM-12".to_owned() };
//! let change = vault.put_principal(&ann.into(), &note).await?;
//!
//! // It makes more of somebody, so another admin has to approve it, after a look at it:
//! for waiting in vault.list_principal_changes().await? {
//!     vault.approve_principal_change(&waiting, &note).await?;
//! }
//!
//! // Off with her, on live connections too, within a second:
//! vault.set_principal_state("ann", false, &note).await?;
//! # Ok(()) }
//! ```
//!
//! Calls are about the tenant of the [`Client`] (see [`Client::for_tenant`]; `*` for an admin of the vault): an admin of a
//! tenant changes roles at it, and what a principal is as a whole only if it is admin wherever that has roles.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use vault_proto::v1 as wire;
use vault_proto::v1::principal_service_client::PrincipalServiceClient;

use crate::client::Client;
use crate::error::Error;
use crate::keys::Note;
use crate::second_factor::{SecondFactor, SecondFactorAction, SecurityKey, request_hash, security_key};

/// What kind of caller a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A program.
    Service,
    /// One person.
    Human,
    /// One that this client does not know.
    Unknown,
}

impl Kind {
    /// In lower case, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Human => "human",
            Self::Unknown => "unknown",
        }
    }

    fn from_wire(kind: wire::principal::Kind) -> Self {
        match kind {
            wire::principal::Kind::Service => Self::Service,
            wire::principal::Kind::Human => Self::Human,
            wire::principal::Kind::Unspecified => Self::Unknown,
        }
    }

    fn to_wire(self) -> wire::principal::Kind {
        match self {
            Self::Service => wire::principal::Kind::Service,
            Self::Human => wire::principal::Kind::Human,
            Self::Unknown => wire::principal::Kind::Unspecified,
        }
    }
}

/// A principal, as far as the caller may see it. To change one, change what was listed and
/// [put](Client::put_principal) it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its name, in the log and in policies.
    pub id: String,
    /// Program or person.
    pub kind: Kind,
    /// By which credentials it is known.
    pub identities: Vec<String>,
    /// What it is, by tenant; `*`: everywhere.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Whether it may call at all.
    pub enabled: bool,
    /// From when on it may not call any more.
    pub expires: Option<SystemTime>,
    /// Whether it comes from the configuration's file, and is changed there.
    pub configured: bool,
    /// Which state this is; 0 for one that is not there yet.
    pub revision: u64,
    /// Its security keys that are in force. A change is not about them.
    pub security_keys: Vec<SecurityKey>,
}

/// A principal that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPrincipal {
    /// Its name; never given to another one.
    pub id: String,
    /// Program or person.
    pub kind: Kind,
    /// By which credentials it is known: `spiffe://...`, `subject:CN=...`.
    pub identities: Vec<String>,
    /// What it is, by tenant. At least one.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// From when on it may not call any more.
    pub expires: Option<SystemTime>,
}

impl NewPrincipal {
    /// With one identity, and no role yet.
    pub fn new(id: impl Into<String>, kind: Kind, identity: impl Into<String>) -> Self {
        let identities = vec![identity.into()];
        Self { id: id.into(), kind, identities, roles: BTreeMap::new(), owner: None, expires: None }
    }
}

impl From<NewPrincipal> for Principal {
    fn from(new: NewPrincipal) -> Self {
        let NewPrincipal { id, kind, identities, roles, owner, expires } = new;
        Self {
            id,
            kind,
            identities,
            roles,
            owner,
            enabled: true,
            expires,
            configured: false,
            revision: 0,
            security_keys: Vec::new(),
        }
    }
}

/// What became of a change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is made: the principal as it is now.
    Made(Principal),
    /// It makes more of somebody, and waits for another person's approval. Nothing has changed yet.
    Waits(Box<PrincipalChange>),
}

impl Change {
    /// The principal, if the change is made.
    pub fn made(self) -> Option<Principal> {
        match self {
            Self::Made(principal) => Some(principal),
            Self::Waits(_) => None,
        }
    }

    /// The change, if it waits.
    pub fn waits(self) -> Option<PrincipalChange> {
        match self {
            Self::Made(_) => None,
            Self::Waits(change) => Some(*change),
        }
    }
}

/// A change that waits for another person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrincipalChange {
    /// Its id, in the log and in alerts.
    pub id: String,
    /// For which tenant it was asked for; `*`: as an admin of the vault.
    pub tenant: String,
    /// Whose it is, of the principals.
    pub principal_id: String,
    /// The principal as it shall be.
    pub principal: Option<Principal>,
    /// The security key that shall be its own.
    pub security_key: Option<SecurityKey>,
    /// What is other than now, by name: `roles_given` = `demo:approver`.
    pub differences: BTreeMap<String, String>,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked: Option<SystemTime>,
    /// Until when it can be approved.
    pub expires: Option<SystemTime>,
    /// Why, in words.
    pub reason: String,
    /// A case number.
    pub ticket: String,
    /// What an approval is of.
    pub hash: Vec<u8>,
    /// Whether the principal was changed since: then it can't be approved any more.
    pub superseded: bool,
}

/// An approval of a change that waits, as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct PrincipalChangeApproval(wire::ApprovePrincipalChangeRequest);

impl PrincipalChangeApproval {
    /// What the second factor is for: see [`Client::begin_second_factor`].
    pub const fn action(&self) -> SecondFactorAction {
        SecondFactorAction::PrincipalChangeApprove
    }

    /// What it is bound to: every byte of the request.
    pub fn hash(&self) -> [u8; 32] {
        request_hash(&self.0)
    }
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oneself {
    /// The principal, with all its roles.
    pub principal: Principal,
    /// How it was authenticated.
    pub factors: Vec<String>,
    /// When its credential ends.
    pub until: Option<SystemTime>,
}

impl Client {
    /// Who is calling, as the vault sees it.
    pub async fn who_am_i(&self) -> Result<Oneself, Error> {
        let answer = self
            .call_of(PrincipalServiceClient::new, wire::WhoAmIRequest {}, async |mut service, request| {
                service.who_am_i(request).await
            })
            .await?;
        Ok(Oneself {
            principal: some(answer.principal)?,
            factors: answer.factors,
            until: time(answer.until_us),
        })
    }

    /// Those who have a role at the tenant, by id; all for a client of tenant `*`.
    pub async fn list_principals(&self) -> Result<Vec<Principal>, Error> {
        let request = wire::ListPrincipalsRequest { tenant: self.tenant() };
        let answer = self
            .call_of(PrincipalServiceClient::new, request, async |mut service, request| {
                service.list_principals(request).await
            })
            .await?;
        Ok(answer.principals.into_iter().map(principal).collect())
    }

    /// Provisions a principal, or changes one: in force on every instance within a second, or when another person has approved
    /// it. Only its roles at the client's
    /// tenant may be named (any, for tenant `*`). It is not repeated by itself: when it failed, look first.
    pub async fn put_principal(&self, principal: &Principal, note: &Note) -> Result<Change, Error> {
        let roles = |(tenant, roles): (&String, &Vec<String>)| wire::TenantRoles {
            tenant: tenant.clone(),
            roles: roles.clone(),
        };
        let wanted = wire::Principal {
            id: principal.id.clone(),
            kind: principal.kind.to_wire().into(),
            identities: principal.identities.clone(),
            roles: principal.roles.iter().map(roles).collect(),
            owner: principal.owner.clone().unwrap_or_default(),
            expires_us: principal.expires.map_or(0, micros),
            revision: principal.revision,
            ..wire::Principal::default()
        };
        let request = wire::PutPrincipalRequest {
            tenant: self.tenant(),
            principal: Some(wanted),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = self
            .call_of_once(PrincipalServiceClient::new, request, async |mut service, request| {
                service.put_principal(request).await
            })
            .await?;
        outcome(answer.principal, answer.waiting)
    }

    /// Disables or enables a principal. Disabled, its next request is refused, on live connections too, on every instance
    /// within a second.
    pub async fn set_principal_state(&self, id: &str, enabled: bool, note: &Note) -> Result<Change, Error> {
        let request = wire::SetPrincipalStateRequest {
            tenant: self.tenant(),
            id: id.to_owned(),
            enabled,
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = self
            .call_of(PrincipalServiceClient::new, request, async |mut service, request| {
                service.set_principal_state(request).await
            })
            .await?;
        outcome(answer.principal, answer.waiting)
    }

    /// Changes that wait for another person's approval: those that were asked for at the tenant, all for a client of tenant
    /// `*`. The oldest first.
    pub async fn list_principal_changes(&self) -> Result<Vec<PrincipalChange>, Error> {
        let request = wire::ListPrincipalChangesRequest { tenant: self.tenant() };
        let answer = self
            .call_of(PrincipalServiceClient::new, request, async |mut service, request| {
                service.list_principal_changes(request).await
            })
            .await?;
        Ok(answer.changes.into_iter().map(change).collect())
    }

    /// Approves a change that somebody else asked for, as it was seen, and so makes it. It is not repeated by itself: when it
    /// failed, look first.
    pub async fn approve_principal_change(&self, change: &PrincipalChange, note: &Note) -> Result<(), Error> {
        self.approve_principal_change_by(&self.principal_change_approval(change, note), None).await
    }

    /// An approval that a second factor can be made for: who has, or ever had, a security key may have to touch it.
    /// The vault says so ([`Reason::SecondFactor`](crate::Reason::SecondFactor)).
    pub fn principal_change_approval(
        &self,
        change: &PrincipalChange,
        note: &Note,
    ) -> PrincipalChangeApproval {
        PrincipalChangeApproval(wire::ApprovePrincipalChangeRequest {
            tenant: self.tenant(),
            id: change.id.clone(),
            hash: change.hash.clone().into(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
            second_factor: None,
        })
    }

    /// Approves a change that somebody else asked for, as it was seen, by a touch of a security key. It is not repeated by
    /// itself: when it failed, look first.
    pub async fn approve_principal_change_by(
        &self,
        approval: &PrincipalChangeApproval,
        factor: Option<SecondFactor>,
    ) -> Result<(), Error> {
        let mut request = approval.0.clone();
        request.second_factor = factor.map(Into::into);
        self.call_of_once(PrincipalServiceClient::new, request, async |mut service, request| {
            service.approve_principal_change(request).await
        })
        .await
        .map(drop)
    }

    /// Rejects a change that waits, or takes one's own back.
    pub async fn reject_principal_change(&self, id: &str, note: &Note) -> Result<(), Error> {
        let request = wire::RejectPrincipalChangeRequest {
            tenant: self.tenant(),
            id: id.to_owned(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        self.call_of_once(PrincipalServiceClient::new, request, async |mut service, request| {
            service.reject_principal_change(request).await
        })
        .await
        .map(drop)
    }
}

fn outcome(made: Option<wire::Principal>, waits: Option<wire::PrincipalChange>) -> Result<Change, Error> {
    match waits {
        Some(waits) => Ok(Change::Waits(Box::new(change(waits)))),
        None => some(made).map(Change::Made),
    }
}

fn change(wire: wire::PrincipalChange) -> PrincipalChange {
    PrincipalChange {
        id: wire.id,
        tenant: wire.tenant,
        principal_id: wire.principal_id,
        principal: wire.principal.map(principal),
        security_key: wire.security_key.map(security_key),
        differences: wire.differences.into_iter().map(|one| (one.name, one.value)).collect(),
        asked_by: wire.asked_by,
        asked: time(wire.asked_us),
        expires: time(wire.expires_us),
        reason: wire.reason,
        ticket: wire.ticket,
        hash: wire.hash.to_vec(),
        superseded: wire.superseded,
    }
}

fn some(found: Option<wire::Principal>) -> Result<Principal, Error> {
    found.map(principal).ok_or_else(|| Error::bad_answer("no principal in it"))
}

fn principal(wire: wire::Principal) -> Principal {
    let kind = Kind::from_wire(wire.kind());
    Principal {
        id: wire.id,
        kind,
        identities: wire.identities,
        roles: wire.roles.into_iter().map(|roles| (roles.tenant, roles.roles)).collect(),
        owner: Some(wire.owner).filter(|owner| !owner.is_empty()),
        enabled: wire.enabled,
        expires: time(wire.expires_us),
        configured: wire.configured,
        revision: wire.revision,
        security_keys: wire.security_keys.into_iter().map(security_key).collect(),
    }
}

/// 0: never. What is past all times is never, too.
fn time(micros: u64) -> Option<SystemTime> {
    (micros > 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))).flatten()
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
