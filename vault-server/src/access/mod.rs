//! Who calls, and what they may do.
//!
//! A request goes this way, and each step needs what only the one before it gives:
//!
//! ```text
//! certificate --Credential::from_certificate--> Credential      once for each connection
//! Credential  --Access::authenticate----------> Caller          for each request
//! Caller      --Access::tenant----------------> TenantId
//! Caller, tenant, records --Access::permit----> Permit<Detokenize>, or refusals
//! ```
//!
//! * Principals are provisioned ([`Directory`]); a certificate that names none of them is nobody's.
//! * What a role may do is said by [`Policies`] (Cedar), which a reload swaps together with the directory.
//! * What is another tenant's is out of reach before policy is asked, whatever it says.
//! * A [`Permit`] is proof, in the type system, that policy allowed this action on these records for this request.

mod alert;
mod credential;
mod decisions;
mod directory;
mod engine;
mod follow;
mod honeytoken;
mod identity;
mod limits;
mod matrix;
mod name;
mod permit;
mod policy;
mod principal;
mod provisioned;
mod question;
mod role;
#[cfg(test)]
pub(crate) mod testing;

pub use alert::{Alert, AlertKind, Severity, UnreadableAlert, WaitingAlert};
pub use credential::{Credential, CredentialError};
pub use directory::{Directory, DirectoryError, Fault};
pub use engine::{Access, TenantError, Unauthenticated};
pub use follow::Provisioning;
pub use honeytoken::{Honeytoken, Honeytokens};
pub use identity::{InvalidIdentity, canonical as canonical_identity};
pub use limits::{Crossing, HoursRule, LimitError, LimitRule, LimitRules, Then, UsageLimits, Use, Whom};
pub use matrix::matrix;
pub use permit::{OpenAction, Permit};
pub use policy::{InvalidPolicy, Policies, PolicyError};
pub use principal::{Caller, Principal, PrincipalKind, TenantScope};
pub use provisioned::{CorruptPrincipal, generation_place, next_generation, read_principal, write_principal};
pub use question::{Action, GrantSeen, Question, Reason, Verdict};
pub use role::{Role, RoleSet};
