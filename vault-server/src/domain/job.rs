//! Long work on keys, as it is kept.

use crate::domain::{JobId, KeyId, KmsSet, PrincipalId, TenantId, Timestamp};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $number:literal $name:literal;)*) => {
        /// What is to be done. For each tenant at most one of a kind is under way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum JobKind {
            $($(#[$doc])* $variant,)*
        }

        impl JobKind {
            /// All of them, in the order of their numbers.
            pub const ALL: &[JobKind] = &[$(JobKind::$variant),*];

            /// The name, for people and in the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The number at rest. Never change one.
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number),* }
            }

            /// From its number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Seals records anew under the tenant's active data key.
    Reencrypt 1 "reencrypt";
    /// Makes blind indexes anew under the tenant's active index key.
    Reindex 2 "reindex";
    /// Wraps keys under the KMS keys that are configured, and under no others.
    Rewrap 3 "rewrap";
    /// Destroys a version of a key that no record refers to.
    Destroy 4 "destroy";
    /// Destroys all keys of a tenant, and with them what was sealed under them.
    Shred 5 "shred";
}

/// How it stands with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobState {
    /// It needs a second person's approval.
    Asked,
    /// A worker works on it, or will as soon as it may.
    Running,
    /// Until somebody resumes it.
    Paused,
    /// It is done, and that was proven.
    Done,
    /// It can't be done.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Asked, Self::Running, Self::Paused, Self::Done, Self::Failed, Self::Cancelled];

    /// Whether no more will come of it.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Asked | Self::Running | Self::Paused => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }

    /// The name, for people and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a job stands: a tenant (or the vault itself) has one place for each kind, which keeps the newest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobPlace {
    /// Whose keys; `None` for the vault's own.
    pub tenant: Option<TenantId>,
    /// What is to be done.
    pub kind: JobKind,
}

/// How much work a job may make, in a second. 0: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobBudget {
    /// Bytes of records that are written anew.
    pub bytes: u64,
    /// Calls of the KMS.
    pub kms_calls: u32,
}

/// What was asked for; it does not change afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOrder {
    /// The one version that it is about; `None`: all but the active one.
    pub key: Option<KeyId>,
    /// How much work it may make.
    pub budget: JobBudget,
    /// Who asked.
    pub asked_by: PrincipalId,
    /// When.
    pub asked: Timestamp,
    /// Not to be begun before.
    pub not_before: Timestamp,
    /// By what who asked is known again under another name: the access layer's own, where another person must approve. Empty:
    /// nobody has to, or software of before wrote the row.
    pub asker: Vec<u8>,
    /// A re-wrap: the KMS keys of the instance that was asked. No instance with others does it.
    pub kms_set: Option<KmsSet>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Records or keys that there were to do when it began; more may have come.
    pub total: u64,
    /// Those that it changed.
    pub done: u64,
    /// Those that it could not change; each is named in the log.
    pub failed: u64,
    /// Bytes of records that it wrote.
    pub bytes: u64,
    /// Calls of the KMS that it made.
    pub kms_calls: u64,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id, in the log.
    pub id: JobId,
    /// Where it stands.
    pub place: JobPlace,
    /// What was asked for.
    pub order: JobOrder,
    /// How it stands with it.
    pub state: JobState,
    /// Who approved it, if it needs that: never who asked.
    pub approved_by: Option<PrincipalId>,
    /// When a worker began; 0 before that.
    pub begun: Timestamp,
    /// When it was changed last.
    pub changed: Timestamp,
    /// How far it is.
    pub progress: JobProgress,
    /// Why it failed, in a word; empty otherwise.
    pub cause: String,
    /// Counts changes of this row, from 0; compare-and-set goes by it. A new job goes on counting where the one before
    /// it in its place ended.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_number() {
        for kind in JobKind::ALL {
            assert_eq!(JobKind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(JobKind::from_number(0), None);
    }
}
