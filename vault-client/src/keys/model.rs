//! What is known of keys and jobs, from its messages.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use vault_proto::v1 as wire;

use crate::error::Error;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$of])* $variant,)*
            /// One that this client does not know.
            Unknown,
        }

        impl $name {
            /// In lower case, for people.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Unknown => "unknown" }
            }

            const fn from_wire(wire: wire::$name) -> Self {
                match wire {
                    $(wire::$name::$variant => Self::$variant,)*
                    wire::$name::Unspecified => Self::Unknown,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a key is for. Each purpose has versions of its own.
    KeyPurpose {
        /// Seals records.
        Data "data";
        /// Makes blind indexes and subject references.
        Index "index";
        /// Signs the log's checkpoints. The vault's own, not a tenant's.
        LogSigning "log-signing";
        /// Seals the rows of the access layer. The vault's own, not a tenant's; it is not rotated.
        RowMac "row-mac";
    }
}

words! {
    /// What a version of a key may do (NIST SP 800-57 part 1, section 7).
    KeyState {
        /// Seals and opens.
        Active "active";
        /// Opens only.
        Retired "retired";
        /// Opens only for the job that re-encrypts.
        Compromised "compromised";
        /// Gone.
        Destroyed "destroyed";
    }
}

words! {
    /// What a job does. For each tenant one of a kind is under way at a time.
    JobKind {
        /// Seals records anew under the active data key: those under one version, or under all others.
        Reencrypt "reencrypt";
        /// Makes blind indexes anew under the active index key.
        Reindex "reindex";
        /// Wraps keys under the KMS keys that are configured, and under no others.
        Rewrap "rewrap";
        /// Destroys a version of a data key that no record refers to. Needs a second person and a waiting period.
        Destroy "destroy";
        /// Destroys all keys of a tenant, and with them every value. Needs a second person and a waiting period.
        Shred "shred";
    }
}

words! {
    /// How it stands with a job.
    JobState {
        /// It needs a second person's approval.
        Asked "asked";
        /// Under way, or about to be.
        Running "running";
        /// Until somebody resumes it.
        Paused "paused";
        /// It is done.
        Done "done";
        /// It could not be done.
        Failed "failed";
        /// Somebody cancelled it. What was done by then stays done.
        Cancelled "cancelled";
    }
}

impl JobState {
    /// Whether no more will come of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl KeyPurpose {
    pub(super) const fn to_wire(self) -> wire::KeyPurpose {
        match self {
            Self::Data => wire::KeyPurpose::Data,
            Self::Index => wire::KeyPurpose::Index,
            Self::LogSigning => wire::KeyPurpose::LogSigning,
            Self::RowMac => wire::KeyPurpose::RowMac,
            Self::Unknown => wire::KeyPurpose::Unspecified,
        }
    }
}

impl JobKind {
    pub(super) const fn to_wire(self) -> wire::JobKind {
        match self {
            Self::Reencrypt => wire::JobKind::Reencrypt,
            Self::Reindex => wire::JobKind::Reindex,
            Self::Rewrap => wire::JobKind::Rewrap,
            Self::Destroy => wire::JobKind::Destroy,
            Self::Shred => wire::JobKind::Shred,
            Self::Unknown => wire::JobKind::Unspecified,
        }
    }
}

/// The text is not the id of a key or a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("32 hexadecimal digits")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// Names a version of a key; not a secret.
    KeyId
}
id! {
    /// Names a job, in the log as well.
    JobId
}

/// A version of a key, counted from 1 for each purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyVersion(pub u32);

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is known of a version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Which version.
    pub version: KeyVersion,
    /// What it may do.
    pub state: KeyState,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// Names of the KMS keys that wrap it.
    pub wrapped_by: Vec<String>,
    /// Those of them that the vault does not ask: not configured any more, or not among those that the tenant is pinned
    /// to. A rewrap drops their wraps.
    pub stray_wraps: Vec<String>,
    /// Records that are sealed under it, if they were counted; 0 of keys that seal none.
    pub records: u64,
}

impl Key {
    /// An active one of tenant `demo`, for tests of what shows keys.
    #[doc(hidden)]
    pub fn active(purpose: KeyPurpose, version: u32) -> Self {
        let mut id = [0; 16];
        (id[0], id[15]) = (purpose as u8, u8::try_from(version).unwrap_or(u8::MAX));
        Self {
            id: KeyId(id),
            tenant: "demo".to_owned(),
            purpose,
            version: KeyVersion(version),
            state: KeyState::Active,
            created: None,
            wrapped_by: Vec::new(),
            stray_wraps: Vec::new(),
            records: 0,
        }
    }
}

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The active version.
    pub key: Key,
    /// Whether it was made for this call. `false` where another one had replaced the version already; and where the
    /// answer to a first attempt was lost, which a later one can't tell from that.
    pub rotated: bool,
}

/// What is said about a call, for the vault's log. No PHI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// Why, in words: at most 512 characters.
    pub reason: String,
    /// A ticket or case number: at most 128 characters.
    pub ticket: String,
}

/// A job to be begun, or to be previewed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobOrder {
    /// What is to be done.
    pub kind: JobKind,
    /// The version that it is about: required for [`JobKind::Destroy`], allowed for [`JobKind::Reencrypt`].
    pub key: Option<KeyId>,
    /// Bytes of records that it may write in a second; 0: the vault's default.
    pub bytes_per_second: u64,
    /// Calls of the KMS that it may make in a second; 0: the vault's default.
    pub kms_calls_per_second: u32,
}

impl JobOrder {
    /// At the vault's default pace.
    pub const fn new(kind: JobKind) -> Self {
        Self { kind, key: None, bytes_per_second: 0, kms_calls_per_second: 0 }
    }

    /// About one version of a key.
    #[must_use]
    pub const fn of_key(self, key: KeyId) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// What a job would have to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preview {
    /// Records or keys.
    pub items: u64,
    /// About how many bytes of records.
    pub bytes: u64,
    /// Calls of the KMS.
    pub kms_calls: u64,
    /// What they cost, in millionths of the currency of the price that the vault has; 0 if it has none.
    pub kms_cost_micros: u64,
    /// About how long it takes at the vault's default pace.
    pub time: Duration,
    /// Why the job would be refused now, in a word, such as `key_in_use`.
    pub refused: Option<String>,
}

/// A job, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose keys; `*` for the vault's own.
    pub tenant: String,
    /// What it does.
    pub kind: JobKind,
    /// How it stands.
    pub state: JobState,
    /// The version that it is about, if it is one.
    pub key: Option<KeyId>,
    /// The principal who asked for it.
    pub asked_by: String,
    /// The principal who approved it, once that is so.
    pub approved_by: Option<String>,
    /// When it was asked for.
    pub asked: Option<SystemTime>,
    /// It does not begin before.
    pub not_before: Option<SystemTime>,
    /// When it began.
    pub begun: Option<SystemTime>,
    /// When it changed last.
    pub changed: Option<SystemTime>,
    /// Records or keys that there were to do when it began; more may have come.
    pub total: u64,
    /// Those that it changed.
    pub done: u64,
    /// Those that it could not change. The vault's log names each.
    pub failed: u64,
    /// Bytes of records that it wrote.
    pub bytes: u64,
    /// Calls of the KMS that it made.
    pub kms_calls: u64,
    /// Why it failed, in a word, such as `records_left`.
    pub cause: Option<String>,
    /// The most bytes that it writes in a second; 0: no bound.
    pub bytes_per_second: u64,
    /// The most calls of the KMS that it makes in a second; 0: no bound.
    pub kms_calls_per_second: u32,
}

impl Job {
    /// One that `admin` asked for at tenant `demo`, for tests of what shows jobs.
    #[doc(hidden)]
    pub fn standing(kind: JobKind, state: JobState) -> Self {
        Self {
            id: JobId([0xab; 16]),
            tenant: "demo".to_owned(),
            kind,
            state,
            key: None,
            asked_by: "admin".to_owned(),
            approved_by: None,
            asked: None,
            not_before: None,
            begun: None,
            changed: None,
            total: 0,
            done: 0,
            failed: 0,
            bytes: 0,
            kms_calls: 0,
            cause: None,
            bytes_per_second: 0,
            kms_calls_per_second: 0,
        }
    }
}

/// How a watched job stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct JobNews {
    /// The job.
    pub job: Job,
    /// Items a second of late, if that is known.
    pub rate: Option<f64>,
    /// About how long it still takes, if that is known.
    pub left: Option<Duration>,
}

pub(super) fn news(wire: wire::WatchJobResponse) -> Result<JobNews, Error> {
    Ok(JobNews {
        job: some_job(wire.job)?,
        rate: (wire.rate.is_finite() && wire.rate > 0.0).then_some(wire.rate),
        left: (wire.seconds_left > 0).then(|| Duration::from_secs(wire.seconds_left)),
    })
}

pub(super) fn key(wire: wire::Key) -> Result<Key, Error> {
    Ok(Key {
        id: id(&wire.key_id)?,
        purpose: KeyPurpose::from_wire(wire.purpose()),
        version: KeyVersion(wire.version),
        state: KeyState::from_wire(wire.state()),
        created: time(wire.created_us),
        wrapped_by: wire.wrapped_by,
        stray_wraps: wire.stray_wraps,
        records: wire.records,
        tenant: wire.tenant,
    })
}

pub(super) fn some_key(wire: Option<wire::Key>) -> Result<Key, Error> {
    key(wire.ok_or_else(|| Error::bad_answer("no key"))?)
}

pub(super) fn job(wire: wire::Job) -> Result<Job, Error> {
    Ok(Job {
        id: id(&wire.job_id)?,
        kind: JobKind::from_wire(wire.kind()),
        state: JobState::from_wire(wire.state()),
        key: some_text(wire.key_id).map(|text| id(&text)).transpose()?,
        tenant: wire.tenant,
        asked_by: wire.asked_by,
        approved_by: some_text(wire.approved_by),
        asked: time(wire.asked_us),
        not_before: time(wire.not_before_us),
        begun: time(wire.begun_us),
        changed: time(wire.changed_us),
        total: wire.total,
        done: wire.done,
        failed: wire.failed,
        bytes: wire.bytes,
        kms_calls: wire.kms_calls,
        cause: some_text(wire.cause),
        bytes_per_second: wire.bytes_per_second,
        kms_calls_per_second: wire.kms_calls_per_second,
    })
}

pub(super) fn some_job(wire: Option<wire::Job>) -> Result<Job, Error> {
    job(wire.ok_or_else(|| Error::bad_answer("no job"))?)
}

fn id<T: FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::bad_answer("an id is not one"))
}

pub(super) fn some_text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// From microseconds since 1970; 0 is no time.
fn time(micros: u64) -> Option<SystemTime> {
    let since = (micros > 0).then(|| Duration::from_micros(micros))?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hexadecimal_digits() {
        let digits = "0123456789abcdef0123456789abcdef";
        assert_eq!(digits.parse::<JobId>().unwrap().to_string(), digits);
        for bad in ["", "00", &digits[1..], &digits.replace('0', "g")] {
            assert_eq!(bad.parse::<KeyId>(), Err(InvalidId));
        }
    }

    #[test]
    fn what_this_client_does_not_know_is_unknown() {
        let wire = wire::Job { job_id: "0".repeat(32), kind: 99, state: 99, ..wire::Job::default() };
        let job = job(wire).unwrap();
        assert_eq!((job.kind, job.state, job.state.is_over()), (JobKind::Unknown, JobState::Unknown, false));
        assert_eq!((job.key, job.begun, job.cause), (None, None, None));
    }

    #[test]
    fn an_answer_without_a_job_or_with_a_bad_id_is_refused() {
        assert!(some_job(None).is_err() && some_key(None).is_err());
        assert!(job(wire::Job::default()).is_err() && key(wire::Key::default()).is_err());
    }
}
