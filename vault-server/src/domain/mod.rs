//! The words of the vault as types. No I/O, no async, no serialization of secrets.

pub mod class;
pub mod entity;
pub mod id;
pub mod index;
pub mod job;
pub mod key;
pub mod record;
pub mod second_factor;
pub mod secret;
pub mod time;

pub use entity::{
    Entity, EntityKind, EntityName, EntityPlace, EntityScope, MAX_ENTITY, MAX_SEALED_ENTITY, ROW_SEAL,
};
pub use id::{
    AlertId, ChallengeId, ClassName, GrantId, IdempotencyKey, InstanceId, JobId, KeyId, KeyVersion, KmsSet,
    LeaseName, PrincipalId, ProposalId, RequestId, TenantId, VaultId,
};
pub use index::{BlindIndex, SubjectRef};
pub use job::{Job, JobBudget, JobKind, JobOrder, JobPlace, JobProgress, JobState};
pub use key::{KeyPurpose, KeyRecord, KeyState, WrappedKey};
pub use record::{Body, Record, Sealed};
pub use second_factor::SecondFactorAction;
pub use secret::{Masked, Plaintext, SubjectId};
pub use time::{Clock, SystemClock, Timestamp};
pub use vault_format::environment::Environment;
pub use vault_format::purpose::Purpose;
pub use vault_format::token::{Token, TokenError};

/// Which vault this is: fixed when it is made, part of every record's associated data and of every KMS context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultIdentity {
    /// Random id of the deployment.
    pub vault: VaultId,
    /// Its environment.
    pub environment: Environment,
}
