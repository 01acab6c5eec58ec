//! The life of the key that signs the log, which is the vault's own.
//!
//! A change is one commit: the rows of both versions, with the statement that old and new have signed
//! ([`vault_format::history`]), and the entry.

use vault_format::history::{self, History};
use vault_format::note::{NoteError, Signer, Verifier};

use super::keys::{ATTEMPTS, changed, describe, item};
use super::{KnownKey, Problem, Refused, Vault};
use crate::audit::{self, Draft, LogError};
use crate::domain::{KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion};
use crate::store::{LogId, Write};

/// All of them stay, and each has a statement that every verifier reads.
const MOST_VERSIONS: usize = 1000;

/// A version that is not kept yet, and what signs with it.
struct Successor {
    record: KeyRecord,
    signer: Signer,
}

impl Vault {
    /// All versions, newest first, and the statements on them.
    async fn signing_versions(&self) -> Result<(Vec<KeyRecord>, String), Refused> {
        let versions = self.parts.keyring.list(None, KeyPurpose::LogSigning).await?;
        let statements = versions.iter().rev().map(|key| key.statements.as_str()).collect();
        Ok((versions, statements))
    }

    /// The newest key under the vault's name, and the statements that lead to it.
    pub(super) async fn signing_history(&self) -> Result<(Verifier, String), Refused> {
        let (_, statements) = self.signing_versions().await?;
        // The follower's is one of them, and at most as old as its last step.
        match History::read(&statements, &self.parts.follower.newest_key()) {
            Ok(history) => Ok((history.newest().clone(), statements)),
            Err(error) => {
                tracing::error!(%error, "the statements on the log's signing keys are not accepted");
                Err(Problem::LogUnavailable.whole())
            }
        }
    }

    /// As [`Vault::rotate_key`], for the key that signs the log.
    pub(super) async fn rotate_signing(
        &self,
        draft: Draft,
        version: Option<KeyVersion>,
    ) -> Result<(KnownKey, bool), Refused> {
        let mut replace = version;
        for _ in 0..ATTEMPTS {
            let mut draft = draft.clone();
            let (versions, _) = self.signing_versions().await?;
            let Some(active) = versions.iter().find(|key| key.state == KeyState::Active) else {
                return Err(self.log_refusal(draft, Vec::new(), Problem::NotFound.at("purpose")).await);
            };
            if replace.is_some_and(|asked| asked > active.version) {
                let refused = Problem::Field("a version that there is").at("version");
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            }
            if replace.is_some_and(|asked| asked != active.version) {
                draft.details.push(("rotated", "false".to_owned()));
                self.parts.log.record(draft, vec![item(active)]).await?;
                return Ok((self.known(active.clone()), false));
            }
            if versions.len() >= MOST_VERSIONS {
                return Err(self.log_refusal(draft, Vec::new(), Problem::TooManyVersions.whole()).await);
            }
            let old = self.signer(active).await?;
            let Successor { record: new, signer } = self.successor(active, &old).await?;
            draft.details.extend(describe(&new));
            draft.details.push(("replaces", active.version.0.to_string()));
            draft.details.push(("verifier", signer.verifier().to_key()));
            let items = vec![item(&new), item(active)];
            let writes =
                vec![Write::InsertKey(new.clone()), Write::ReplaceKey(changed(active, KeyState::Retired))];
            match self.parts.log.commit(draft, items, writes).await {
                Ok(_) => return Ok((self.known(new), true)),
                // Somebody else was faster. What was to be replaced is replaced then.
                Err(LogError::Conflict { .. }) => replace = Some(active.version),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// As [`Vault::mark_compromised`], for a key that signs the log. An active one is replaced in the same commit: without
    /// a KMS that makes the next one, it is not marked.
    pub(super) async fn mark_signing(&self, draft: Draft, id: KeyId) -> Result<KnownKey, Refused> {
        for _ in 0..ATTEMPTS {
            let mut draft = draft.clone();
            let (versions, statements) = self.signing_versions().await?;
            let key = versions.iter().find(|key| key.id == id);
            let active = versions.iter().find(|key| key.state == KeyState::Active);
            let (Some(key), Some(active)) = (key, active) else {
                return Err(self.log_refusal(draft, Vec::new(), Problem::NotFound.at("key_id")).await);
            };
            draft.details.extend(describe(key));
            let mut items = vec![item(key)];
            if key.state == KeyState::Compromised {
                self.parts.log.record(draft, items).await?;
                return Ok(self.known(key.clone()));
            }
            let by = self.signer(active).await?;
            let mut marked = changed(key, KeyState::Compromised);
            let mut writes = Vec::new();
            let mark = if key.id == active.id {
                let Successor { record: new, signer } = self.successor(active, &by).await?;
                draft.details.push(("replaced_by", new.version.0.to_string()));
                draft.details.push(("verifier", signer.verifier().to_key()));
                items.push(item(&new));
                writes.push(Write::InsertKey(new));
                history::compromised(key.version.0, by.verifier(), &signer)
            } else {
                let known =
                    History::read(&statements, by.verifier()).map_err(|_| Problem::Internal.whole())?;
                let of = known.key(key.version.0).ok_or_else(|| Problem::Internal.whole())?;
                // A mark by a key that does not sign any more would be refused.
                writes.push(Write::Active(active.id));
                history::compromised(key.version.0, of, &by)
            };
            marked.statements.push_str(&mark.map_err(internal)?);
            writes.push(Write::ReplaceKey(marked.clone()));
            match self.parts.log.commit(draft, items, writes).await {
                Ok(_) => return Ok(self.known(marked)),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// The next version, with the statement that it takes the place of `active`.
    async fn successor(&self, active: &KeyRecord, old: &Signer) -> Result<Successor, Refused> {
        let version = active.version.0.checked_add(1).ok_or_else(|| Problem::Internal.whole())?;
        let (mut record, seed) = self.parts.keyring.new_signing_version(KeyVersion(version)).await?;
        // Exposed: to the signer, which keeps it in memory that is wiped.
        let signer = Signer::from_seed(old.verifier().name(), seed.expose()).map_err(internal)?;
        record.statements = history::succession(version, old, &signer).map_err(internal)?;
        Ok(Successor { record, signer })
    }

    async fn signer(&self, key: &KeyRecord) -> Result<Signer, Refused> {
        let seed = self.parts.keyring.signing_seed(key).await?;
        let vault = audit::origin(&self.parts.identity, LogId::default());
        // Exposed: as above.
        Signer::from_seed(&vault, seed.expose()).map_err(internal)
    }
}

fn internal(_: NoteError) -> Refused {
    Problem::Internal.whole()
}
