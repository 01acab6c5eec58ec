//! Sealing records anew, for the jobs that do so: what was sealed is opened and sealed again in here, and no value leaves.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::crypto::aad::Place;
use crate::crypto::index::blind_index;
use crate::crypto::open::{OpenError, unpad, unseal_padded};
use crate::crypto::random::Fresh;
use crate::crypto::seal::{SealError, seal_plain};
use crate::crypto::{DataKey, IndexKey};
use crate::domain::class::DataClass;
use crate::domain::{BlindIndex, Body, JobId, KeyId, Record, TenantId, Timestamp, VaultIdentity};

/// That a job may seal a tenant's records anew: its beginning is in the log, durably. No `Clone`.
pub struct Mandate {
    job: JobId,
    tenant: TenantId,
}

impl Mandate {
    /// Asserts that the entry is there. Only the jobs' `mandate` module may call this; a test keeps it so.
    pub(crate) fn assertion(job: JobId, tenant: TenantId) -> Self {
        Self { job, tenant }
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Whose records.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

/// Why a record was not sealed anew. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResealError {
    /// The record is not of the tenant that the mandate is for.
    #[error("record of another tenant")]
    NotMandated,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its value is not of its class any more, so that it has no index.
    #[error("value not of its class")]
    Class,
    /// It was not sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Seals records anew.
pub struct Resealing<'a> {
    /// By what right.
    pub mandate: &'a Mandate,
    /// Which vault this is.
    pub identity: &'a VaultIdentity,
    /// The keys that they are sealed under.
    pub from: &'a HashMap<KeyId, Arc<DataKey>>,
    /// The key to seal them under.
    pub to: &'a DataKey,
}

impl Resealing<'_> {
    /// Seals the records anew, as they are, and counts their revisions on. One for which that fails stays as it was.
    pub fn records(&self, records: &mut [Box<Record>]) -> Vec<Result<(), ResealError>> {
        let fresh = match Fresh::several(records.len()) {
            Ok(fresh) => fresh,
            Err(error) => return vec![Err(SealError::Random(error).into()); records.len()],
        };
        let anew = |(record, fresh): (&mut Box<Record>, &Fresh)| {
            let plain = self.open(record)?;
            self.seal(record, record.index, &plain, fresh)
        };
        records.iter_mut().zip(&fresh).map(anew).collect()
    }

    /// Makes the record's index under another index key and seals it anew, and counts its revision on. It stays as it was
    /// if that fails.
    pub fn indexed(
        &self,
        record: &mut Record,
        class: &DataClass,
        index: &IndexKey,
        now: Timestamp,
    ) -> Result<(), ResealError> {
        if record.class != *class.name() || index.tenant() != &record.tenant {
            return Err(ResealError::NotMandated);
        }
        let plain = self.open(record)?;
        let value = unpad(plain.clone())?;
        let normalized = class.normalize(&value, now).map_err(|_| ResealError::Class)?;
        let index = Some(blind_index(index, class.name(), &normalized));
        self.seal(record, index, &plain, &Fresh::new().map_err(SealError::from)?)
    }

    fn open(&self, record: &Record) -> Result<Zeroizing<Vec<u8>>, ResealError> {
        if record.tenant != self.mandate.tenant {
            return Err(ResealError::NotMandated);
        }
        let from = record.key_id().and_then(|id| self.from.get(&id)).ok_or(OpenError::WrongKey)?;
        Ok(unseal_padded(record, self.identity, from)?)
    }

    fn seal(
        &self,
        record: &mut Record,
        index: Option<BlindIndex>,
        plain: &[u8],
        fresh: &Fresh,
    ) -> Result<(), ResealError> {
        let place = Place { index, ..Place::of_record(record, self.identity) };
        let bytes =
            seal_plain(&place, self.to, plain.len(), fresh, |sealed| sealed.extend_from_slice(plain))?;
        record.body = Body::Sealed { key_id: self.to.id(), key_version: self.to.version(), bytes };
        record.index = index;
        // A row that changed four billion times: compare-and-set refuses what does not count on.
        record.revision = record.revision.wrapping_add(1);
        Ok(())
    }
}
