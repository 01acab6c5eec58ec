//! The vault's keys: the KMS that wraps them, and the keyring that has them open.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::app::config::{Config, KmsKind};
use crate::audit::KeyJournal;
use crate::domain::Clock;
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::aws::{AwsOptions, Limits};
use crate::kms::{AwsKms, Kms, LocalKms, WrappingKeys};
use crate::store::Store;

/// Whether sealing uses the fast Poly1305 for short messages; told at the start.
pub const FAST_POLY1305: bool = crate::crypto::FAST_POLY1305;

/// Makes the root key of the local KMS, in a file that must not be there.
pub fn create_root_key(file: &Path) -> anyhow::Result<()> {
    LocalKms::create(file)?;
    Ok(())
}

/// Who wraps the vault's keys: the KMS keys of all tenants, and those that some are held to.
pub(in crate::app) async fn wrapping_keys(config: &Config) -> anyhow::Result<WrappingKeys> {
    let mut keys = WrappingKeys::new(kms(config).await?);
    for pin in &config.kms.residency {
        keys = keys.pin(pin.tenant.clone(), &pin.keys).context("[[kms.residency]]")?;
    }
    Ok(keys)
}

/// What opens the vault's keys, and keeps them open for a while.
pub(in crate::app) fn keyring(
    config: &Config,
    kms: WrappingKeys,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
) -> Arc<Keyring> {
    Arc::new(Keyring::new(
        config.identity(),
        Arc::clone(store),
        kms,
        Arc::new(KeyJournal::new(Arc::clone(clock))),
        Arc::clone(clock),
        CacheOptions {
            lifetime: config.cache.lifetime,
            max_uses: config.cache.max_uses,
            max_entries: config.cache.max_entries,
        },
    ))
}

async fn kms(config: &Config) -> anyhow::Result<Vec<Arc<dyn Kms>>> {
    match config.kms.kind {
        KmsKind::Local => {
            let file = config.kms.root_key_file.as_ref().context("kms.root_key_file")?;
            let local = LocalKms::open(file).with_context(|| format!("root key {}", file.display()))?;
            Ok(vec![Arc::new(local)])
        }
        KmsKind::Aws => {
            let mut keys: Vec<Arc<dyn Kms>> = Vec::new();
            for key in &config.kms.key {
                let options = AwsOptions {
                    key_arn: key.arn.clone(),
                    endpoint: key.endpoint.clone(),
                    limits: Limits::default(),
                };
                keys.push(Arc::new(AwsKms::connect(options).await.context("[[kms.key]]")?));
            }
            Ok(keys)
        }
    }
}
