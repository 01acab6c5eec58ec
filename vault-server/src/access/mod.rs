//! Who calls, and what they may do.
//!
//! A request goes this way, and each step needs what only the one before it gives:
//!
//! ```text
//! certificate --Credential::from_certificate--> Credential      once for each connection
//! token       --oidc, Session-----------------> Credential      for each request, of people with a session
//! Credential  --Access::authenticate----------> Caller          for each request
//! Caller      --Access::tenant----------------> TenantId
//! Caller, tenant, records --Access::permit----> Permit<Detokenize>, or refusals
//! Grant, caller --Grant::use_by--> GrantUse --Access::permit_under--> Permit<Detokenize>, for breaking the glass
//! ```
//!
//! * Principals are provisioned ([`Directory`]); a certificate that names none of them is nobody's.
//! * What a role may do is said by [`Policies`] (Cedar), which a reload swaps together with the directory.
//! * What is another tenant's is out of reach before policy is asked, whatever it says.
//! * A [`Permit`] is proof, in the type system, that policy allowed this action on these records for this request.

mod alert;
#[cfg(test)]
#[expect(unreachable_pub, reason = "the end-to-end tests have it, too")]
#[path = "../../../tests/src/authenticator.rs"]
pub(crate) mod authenticator;
mod challenge;
mod credential;
mod decisions;
mod directory;
mod engine;
mod enrolled;
mod follow;
mod grant;
mod honeytoken;
mod identity;
mod limits;
mod matrix;
mod name;
pub mod oidc;
mod permit;
mod policy;
mod principal;
mod proposal;
mod provisioned;
mod question;
mod role;
mod security_key;
mod session;
mod ssh;
mod sshsig;
#[cfg(test)]
pub(crate) mod testing;
mod widening;

pub use alert::{Alert, AlertKind, Severity, UnreadableAlert, WaitingAlert};
pub use challenge::{Challenge, ChallengeError, Wanted};
pub use credential::{Credential, CredentialError, CredentialKind, SessionProof};
pub use directory::{Directory, DirectoryError, Fault, ListedKey};
pub use engine::{Access, TenantError, Unauthenticated};
pub use enrolled::{Confirmation, EnrolledKey, Revoked};
pub use follow::Provisioning;
pub use grant::{
    Approval, End, Ended, Grant, GrantFault, GrantRefusal, GrantScope, GrantState, GrantUse, Party, Review,
    ReviewVerdict, Terms,
};
pub use honeytoken::{Honeytoken, Honeytokens};
pub use identity::{InvalidIdentity, canonical as canonical_identity, is_issuer};
pub use limits::{Crossing, HoursRule, LimitError, LimitRule, LimitRules, Then, UsageLimits, Use, Whom};
pub use matrix::matrix;
pub use permit::{OpenAction, Permit};
pub use policy::{InvalidPolicy, Policies, PolicyError};
pub use principal::{Caller, Principal, PrincipalKind, TenantScope};
pub use proposal::{CorruptProposal, Proposal, ProposalRefusal, Proposed, state_hash};
pub use provisioned::{
    CorruptPrincipal, generation_place, next_generation, principal_place, read_principal, write_principal,
};
pub use question::{Action, GrantSeen, Question, Reason, Verdict};
pub use role::{Role, RoleSet};
pub use security_key::{Fingerprint, InvalidSecurityKey, SecurityKey, SecurityKeyKind};
pub use session::{Session, SessionList, SessionRow, SessionRules, SessionToken, UsedToken};
pub use sshsig::{Presence, SECOND_FACTOR_NAMESPACE, SignatureError, SshSignature};
