//! What is asked of the policies, and what they answer.

use std::fmt;
use std::sync::Arc;

use crate::access::{PrincipalKind, RoleSet, TenantScope};
use crate::domain::{ClassName, JobKind, PrincipalId, Purpose};

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Something a caller may or may not do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action {
            $($(#[$doc])* $variant,)*
        }

        impl Action {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Action] = &[$(Action::$variant),*];

            /// The name, in policies and in the matrix.
            pub const fn as_str(self) -> &'static str {
                match self { $(Action::$variant => $name),* }
            }
        }
    };
}

actions! {
    /// Keep values.
    Tokenize "tokenize";
    /// Get plain values.
    Detokenize "detokenize";
    /// Get masked values.
    Mask "mask";
    /// See the year in the mask of a date of birth: part of a masked read, not a call of its own.
    MaskYear "mask_year";
    /// Find tokens by value.
    Find "find";
    /// Learn what is known of tokens without PHI.
    Describe "describe";
    /// Erase values.
    Erase "erase";
    /// Read entries of the log.
    AuditQuery "audit_query";
    /// Get a signed checkpoint of the log.
    AuditCheckpoint "audit_checkpoint";
    /// Get the log's leaves, to verify and to keep.
    AuditExport "audit_export";
    /// See the versions of keys.
    KeyList "key_list";
    /// Make a new version of a key.
    KeyRotate "key_rotate";
    /// Mark a version of a key as compromised.
    KeyCompromise "key_compromise";
    /// Have keys wrapped anew.
    KeyRewrap "key_rewrap";
    /// Have records sealed anew.
    KeyReencrypt "key_reencrypt";
    /// Have blind indexes made anew.
    KeyReindex "key_reindex";
    /// Ask for a version of a key to be destroyed.
    KeyDestroy "key_destroy";
    /// Ask for all keys of a tenant to be destroyed.
    KeyShred "key_shred";
    /// See how jobs stand.
    JobRead "job_read";
    /// Approve a job that needs a second person.
    JobApprove "job_approve";
    /// Pause, resume and cancel jobs.
    JobControl "job_control";
    /// See principals.
    PrincipalRead "principal_read";
    /// Provision, change, disable principals; enroll and revoke their security keys.
    PrincipalChange "principal_change";
    /// Approve or reject a change of principals that somebody else asked for.
    PrincipalApprove "principal_approve";
    /// Ask for a grant of break-glass.
    GrantRequest "grant_request";
    /// Approve or deny one.
    GrantApprove "grant_approve";
    /// End one.
    GrantEnd "grant_end";
    /// Review one.
    GrantReview "grant_review";
    /// See grants of others.
    GrantRead "grant_read";
    /// Check, see and explain policies.
    PolicyRead "policy_read";
    /// See honeytokens.
    HoneytokenRead "honeytoken_read";
    /// Plant and remove honeytokens.
    HoneytokenChange "honeytoken_change";
}

impl Action {
    /// Whether it is about values, each of a class.
    pub const fn of_class(self) -> bool {
        match self {
            Self::Tokenize | Self::Detokenize | Self::Mask | Self::Find | Self::Describe | Self::Erase => {
                true
            }
            Self::MaskYear
            | Self::AuditQuery
            | Self::AuditCheckpoint
            | Self::AuditExport
            | Self::KeyList
            | Self::KeyRotate
            | Self::KeyCompromise
            | Self::KeyRewrap
            | Self::KeyReencrypt
            | Self::KeyReindex
            | Self::KeyDestroy
            | Self::KeyShred
            | Self::JobRead
            | Self::JobApprove
            | Self::JobControl
            | Self::PrincipalRead
            | Self::PrincipalChange
            | Self::PrincipalApprove
            | Self::GrantRequest
            | Self::GrantApprove
            | Self::GrantEnd
            | Self::GrantReview
            | Self::GrantRead
            | Self::PolicyRead
            | Self::HoneytokenRead
            | Self::HoneytokenChange => false,
        }
    }

    /// What whoever asks for a job, or for its preview, must be allowed to do.
    pub const fn of_job(kind: JobKind) -> Self {
        match kind {
            JobKind::Reencrypt => Self::KeyReencrypt,
            JobKind::Reindex => Self::KeyReindex,
            JobKind::Rewrap => Self::KeyRewrap,
            JobKind::Destroy => Self::KeyDestroy,
            JobKind::Shred => Self::KeyShred,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is asked, of a caller and a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What is to be done.
    pub action: Action,
    /// To values of which class; `None`: may it be done at all, to values of whichever class?
    pub class: Option<&'a ClassName>,
    /// What for.
    pub purpose: Option<Purpose>,
    /// Under which grant of break-glass.
    pub grant: Option<GrantSeen>,
}

/// What policies see of a grant of break-glass. Whether it is the caller's own, is in force and covers what is asked for was
/// found before they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantSeen {
    /// How many people approved it.
    pub approvals: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why (not).
    pub reason: Reason,
    /// Ids of the policies that decided, sorted: the permits of an allowed one, the forbids of a denied one.
    /// Empty if nothing permitted it, or if policies were not asked.
    pub policies: Arc<[String]>,
}

/// Why something may, or may not, be done. Not for the caller's eyes: to one, all refusals look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Policy allows it.
    Allowed,
    /// Policy does not allow it.
    DeniedByPolicy,
    /// The record is another tenant's, or the caller has no role there. Policies were not asked.
    ForeignTenant,
}

impl Verdict {
    /// Refused without asking: the data is another tenant's.
    pub(super) fn foreign() -> Self {
        Self { allowed: false, reason: Reason::ForeignTenant, policies: Arc::default() }
    }

    /// What policy said.
    pub(super) fn of_policy(allowed: bool, mut policies: Vec<String>) -> Self {
        policies.sort_unstable();
        let reason = if allowed { Reason::Allowed } else { Reason::DeniedByPolicy };
        Self { allowed, reason, policies: policies.into() }
    }
}

/// All that a policy can see of a request, and at the same time the key under which its verdict is kept: so a
/// verdict can't be reused where a policy could have said something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) principal: PrincipalId,
    pub(super) kind: PrincipalKind,
    pub(super) roles: RoleSet,
    pub(super) place: TenantScope,
    pub(super) action: Action,
    pub(super) class: Option<ClassName>,
    pub(super) purpose: Option<Purpose>,
    pub(super) grant: Option<GrantSeen>,
}
