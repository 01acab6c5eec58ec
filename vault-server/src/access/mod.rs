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
mod identity;
#[cfg(test)]
mod matrix;
mod name;
pub mod oidc;
mod permit;
mod policy;
mod principal;
mod question;
mod role;
mod session;
#[cfg(test)]
pub(crate) mod testing;

pub use alert::{Alert, AlertKind, Severity};
pub use credential::{Credential, CredentialError, CredentialKind, SessionProof};
pub use directory::{Directory, DirectoryError, Fault};
pub use engine::{Access, TenantError, Unauthenticated};
pub use identity::{InvalidIdentity, is_issuer};
pub use permit::{OpenAction, Permit};
pub use policy::{InvalidPolicy, Policies, PolicyError};
pub use principal::{Caller, Principal, PrincipalKind, TenantScope};
pub use question::{Action, GrantSeen, Question, Reason, Verdict};
pub use role::{Role, RoleSet};
pub use session::{Session, SessionList, SessionRow, SessionRules, SessionToken, UsedToken};
