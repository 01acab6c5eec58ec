//! The life of a tenant's keys, as rotators and admins steer it.

use std::time::Duration;

use tokio::time::timeout;

use crate::access::Action;
use crate::audit::{AuditAction, Draft, Item, LogError, Outcome};
use crate::domain::{GrantId, KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion, RequestId, TenantId};
use crate::store::Write;

use super::{Context, Note, Problem, Refused, Vault, whole};

/// One version of a key, and how much is sealed under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The version.
    pub key: KeyRecord,
    /// Records that are sealed under it, if they were counted.
    pub records: u64,
    /// KMS keys that have a wrap of it and may not have one: `rewrap` drops those.
    pub strays: Vec<String>,
}

/// Versions of a key that are not destroyed: every find looks under each of an index key's, and an audit query, too.
const MOST_VERSIONS: usize = 64;
/// How long the mark on a compromised key waits for the key that is to replace it.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);
/// How often a change is tried against others who change the same key.
pub(super) const ATTEMPTS: usize = 4;

impl Vault {
    /// All versions of a tenant's keys, newest first; those of the vault itself for `*`.
    pub async fn list_keys(&self, cx: &Context, tenant: &str, count: bool) -> Result<Vec<KnownKey>, Refused> {
        let (tenant, draft, ()) =
            self.asked_of_place(cx, AuditAction::KeyList, Action::KeyList, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let mut keys = Vec::new();
        for purpose in KeyPurpose::of(tenant.as_ref()).iter().copied() {
            for key in self.parts.keyring.list(tenant.as_ref(), purpose).await? {
                let counted = count && purpose == KeyPurpose::Data;
                let records = if counted { self.parts.store.count_of_key(key.id).await? } else { 0 };
                keys.push(KnownKey { records, ..self.known(key) });
            }
        }
        Ok(keys)
    }

    /// Makes a new active version; whether this call made it. `version`: the one to replace; if another is active by
    /// now, nothing is done.
    pub async fn rotate_key(
        &self,
        cx: &Context,
        tenant: &str,
        purpose: Result<KeyPurpose, Refused>,
        version: Option<KeyVersion>,
        note: Result<Note, Refused>,
    ) -> Result<(KnownKey, bool), Refused> {
        let checked = purpose.and_then(|purpose| Ok((purpose, note?)));
        let (tenant, mut draft, (purpose, note)) =
            self.asked_of_place(cx, AuditAction::KeyRotate, Action::KeyRotate, tenant, checked).await?;
        note.into_draft(&mut draft);
        match (tenant, purpose) {
            (None, KeyPurpose::LogSigning) => self.rotate_signing(draft, version).await,
            (Some(tenant), KeyPurpose::Data | KeyPurpose::Index) => {
                self.rotate(draft, &tenant, purpose, version).await
            }
            (_, KeyPurpose::RowMac) => {
                let refused = Problem::Field("a purpose whose keys have versions").at("purpose");
                Err(self.log_refusal(draft, Vec::new(), refused).await)
            }
            (None, KeyPurpose::Data | KeyPurpose::Index) | (Some(_), KeyPurpose::LogSigning) => {
                let refused = Problem::Field("a tenant for its keys, * for the vault's own").at("tenant");
                Err(self.log_refusal(draft, Vec::new(), refused).await)
            }
        }
    }

    /// Replaces a version that is due by age or use; whether this call did.
    pub async fn rotate_due(&self, key: &KeyRecord, why: &'static str) -> Result<bool, Refused> {
        let Some(tenant) = &key.tenant else { return Ok(false) };
        let request = RequestId::random().map_err(|_| Problem::Internal.whole())?;
        let mut draft = Draft::of_vault(request, AuditAction::KeyRotate);
        draft.tenant = Some(tenant.clone());
        draft.details.push(("why", why.to_owned()));
        Ok(self.rotate(draft, tenant, key.purpose, Some(key.version)).await?.1)
    }

    async fn rotate(
        &self,
        mut draft: Draft,
        tenant: &TenantId,
        purpose: KeyPurpose,
        version: Option<KeyVersion>,
    ) -> Result<(KnownKey, bool), Refused> {
        let mut replace = version;
        for _ in 0..ATTEMPTS {
            let versions = self.parts.keyring.list(Some(tenant), purpose).await?;
            let Some(newest) = versions.first().map(|key| key.version) else {
                return Err(self.log_refusal(draft, Vec::new(), Problem::NotFound.at("tenant")).await);
            };
            let usable = versions.iter().filter(|key| key.state != KeyState::Destroyed).count();
            let active = versions.iter().find(|key| key.state == KeyState::Active);
            match (replace, active) {
                (Some(asked), _) if asked > newest => {
                    let refused = Problem::Field("a version that there is").at("version");
                    return Err(self.log_refusal(draft, Vec::new(), refused).await);
                }
                (Some(asked), Some(active)) if asked != active.version => {
                    draft.details.push(("rotated", "false".to_owned()));
                    self.parts.log.record(draft, vec![item(active)]).await?;
                    return Ok((self.known(active.clone()), false));
                }
                _ => {}
            }
            let problem = match usable {
                0 => Some(Problem::KeyDestroyed),
                MOST_VERSIONS.. => Some(Problem::TooManyVersions),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(self.log_refusal(draft, Vec::new(), problem.whole()).await);
            }
            let new = self.next_version(tenant, purpose, newest).await?;
            let mut draft = draft.clone();
            draft.details.extend(describe(&new));
            let mut items = vec![item(&new)];
            let mut writes = vec![Write::InsertKey(new.clone())];
            // There is no active one after a compromise that no KMS was there to mend.
            if let Some(active) = active {
                draft.details.push(("replaces", active.version.0.to_string()));
                items.push(item(active));
                writes.push(Write::ReplaceKey(changed(active, KeyState::Retired)));
            } else if let Some(there) = versions.iter().find(|key| key.state != KeyState::Destroyed) {
                // It stays as it is. But if it goes meanwhile, so that the tenant has none, none is made any more.
                writes.push(Write::ReplaceKey(changed(there, there.state)));
            }
            match self.parts.log.commit(draft, items, writes).await {
                Ok(_) => {
                    self.parts.keyring.forget(tenant, purpose);
                    return Ok((self.known(new), true));
                }
                // Somebody else was faster. What was to be replaced is replaced then.
                Err(LogError::Conflict { .. }) => {
                    replace = Some(active.map_or(newest, |active| active.version));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// Marks a version as compromised. An active one is replaced in the same step.
    pub async fn mark_compromised(
        &self,
        cx: &Context,
        tenant: &str,
        key: Result<KeyId, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<KnownKey, Refused> {
        let checked = key.and_then(|key| Ok((key, note?)));
        let (tenant, mut draft, (id, note)) = self
            .asked_of_place(cx, AuditAction::KeyCompromise, Action::KeyCompromise, tenant, checked)
            .await?;
        note.into_draft(&mut draft);
        let Some(tenant) = tenant else { return self.mark_signing(draft, id).await };
        for _ in 0..ATTEMPTS {
            let key = match self.key_of(&tenant, id).await? {
                Ok(key) => key,
                Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
            };
            let mut draft = draft.clone();
            draft.details.extend(describe(&key));
            let mut items = vec![item(&key)];
            let mut writes = match key.state {
                KeyState::Destroyed => {
                    let refused = Problem::KeyDestroyed.at("key_id");
                    return Err(self.log_refusal(draft, items, refused).await);
                }
                KeyState::Compromised => Vec::new(),
                KeyState::Active | KeyState::Retired => {
                    vec![Write::ReplaceKey(changed(&key, KeyState::Compromised))]
                }
            };
            if key.state == KeyState::Active {
                let versions = self.parts.keyring.list(Some(&tenant), key.purpose).await?;
                let newest = versions.first().map_or(key.version, |newest| newest.version);
                let new = timeout(REPLACED_WITHIN, self.next_version(&tenant, key.purpose, newest)).await;
                match new.unwrap_or_else(|_| Err(Problem::KmsUnavailable.whole())) {
                    Ok(new) => {
                        draft.details.push(("replaced_by", new.version.0.to_string()));
                        items.push(item(&new));
                        writes.push(Write::InsertKey(new));
                    }
                    // That nobody reads under it can't wait for a KMS. Nothing is written until it is rotated.
                    Err(refused) => {
                        tracing::error!(
                            problem = refused.problem.cause(),
                            "a compromised key was not replaced"
                        );
                        draft.details.push(("replaced_by", "none".to_owned()));
                    }
                }
            }
            match self.parts.log.commit(draft, items, writes).await {
                Ok(_) => {
                    self.parts.keyring.forget(&tenant, key.purpose);
                    return Ok(self.known(changed(&key, KeyState::Compromised)));
                }
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// A key, and which of its wraps are by KMS keys that it is not to have.
    pub(super) fn known(&self, key: KeyRecord) -> KnownKey {
        let strays = self.parts.keyring.strays(&key);
        KnownKey { key, records: 0, strays }
    }

    /// A tenant's key by its id, or why there is none. Another tenant's is not there.
    pub(super) async fn key_of(
        &self,
        tenant: &TenantId,
        id: KeyId,
    ) -> Result<Result<KeyRecord, Refused>, Refused> {
        let key = self.parts.store.key(id).await?;
        let key = key.filter(|key| key.id == id && key.tenant.as_ref() == Some(tenant));
        Ok(key.ok_or_else(|| Problem::NotFound.at("key_id")))
    }

    /// What every call here begins with: whose keys, the entry, the request's fields, and whether it may be done.
    pub(super) async fn asked<T>(
        &self,
        cx: &Context,
        audit: AuditAction,
        action: Action,
        tenant: &str,
        fields: Result<T, Refused>,
    ) -> Result<(TenantId, Draft, T), Refused> {
        self.asked_naming(cx, (audit, action), tenant, fields, |_| None).await
    }

    /// The same, of what names a grant: who may not is on record with the one it named, whether or not there is one.
    pub(super) async fn asked_naming<T>(
        &self,
        cx: &Context,
        (audit, action): (AuditAction, Action),
        tenant: &str,
        fields: Result<T, Refused>,
        grant: impl Fn(&T) -> Option<GrantId>,
    ) -> Result<(TenantId, Draft, T), Refused> {
        let tenant = self.tenant(cx, audit, tenant).await?;
        let mut draft = cx.draft(audit, &tenant);
        let fields = match fields {
            Ok(fields) => fields,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        draft.grant = grant(&fields);
        self.allow(cx, &mut draft, &tenant, whole(action, None), Vec::new).await?;
        Ok((tenant, draft, fields))
    }

    async fn next_version(
        &self,
        tenant: &TenantId,
        purpose: KeyPurpose,
        newest: KeyVersion,
    ) -> Result<KeyRecord, Refused> {
        let next = newest.0.checked_add(1).ok_or_else(|| Problem::Internal.whole())?;
        Ok(self.parts.keyring.new_version(tenant, purpose, KeyVersion(next)).await?)
    }
}

/// The key in another state: its next revision.
pub(super) fn changed(key: &KeyRecord, state: KeyState) -> KeyRecord {
    KeyRecord { state, revision: key.revision.wrapping_add(1), ..key.clone() }
}

pub(super) fn item(key: &KeyRecord) -> Item {
    Item { key_id: Some(key.id), outcome: Outcome::Ok, ..Item::invalid() }
}

pub(super) fn describe(key: &KeyRecord) -> [(&'static str, String); 2] {
    [("key_purpose", key.purpose.as_str().to_owned()), ("key_version", key.version.0.to_string())]
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
