//! Who may: the principals file and the policies, at the start and when they are read anew.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::Context;
use super::audit::own;
use crate::access::{Access, Directory, Policies, Provisioning};
use crate::app::config::Config;
use crate::app::reload::Reloadable;
use crate::audit::{AuditAction, Log};
use crate::domain::{Clock, SystemClock};
use crate::store::Store;

/// Who may, as the files say.
pub(super) fn read(config: &Config) -> anyhow::Result<Access> {
    Ok(Access::new(read_directory(config)?, read_policies(config)?))
}

/// Keeps who may at what the store has.
pub(super) async fn provisioning(
    store: &Arc<dyn Store>,
    access: &Arc<Access>,
    context: &Context,
) -> anyhow::Result<Arc<Provisioning>> {
    let provisioning = Arc::new(Provisioning::new(Arc::clone(store), Arc::clone(access)));
    provisioning.look().await.context("the principals")?;
    tokio::spawn(Arc::clone(&provisioning).run(context.stopping.clone()));
    Ok(provisioning)
}

/// New principals and policies: in the log first, then in force; both or none.
pub(super) fn reload(config: &Config, access: Arc<Access>, log: Arc<Log>) -> Reloadable {
    let mut files: Vec<PathBuf> = vec![config.access.principals.clone()];
    files.extend(config.access.policy.clone());
    let config = config.clone();
    let reload = move || {
        let candidate = access.with(Some(read_directory(&config)?), read_policies(&config)?);
        let now = SystemClock.now();
        if access.has_admin(now) && !candidate.has_admin(now) {
            anyhow::bail!("nobody would be left who may change principals: every admin would be locked out");
        }
        let (directory, policies) = (read_directory(&config)?, read_policies(&config)?);
        let details = vec![
            ("what", "principals and policies".to_owned()),
            ("principals", directory.principals().count().to_string()),
            ("policies", policies.ids().len().to_string()),
        ];
        let entry = own(AuditAction::Reload, details)?;
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(log.record(entry, Vec::new()))
        })
        .context("the reload's log entry")?;
        access.reload(directory, policies);
        Ok(())
    };
    Reloadable { name: "access", files, reload: Box::new(reload) }
}

fn read_directory(config: &Config) -> anyhow::Result<Directory> {
    let file = &config.access.principals;
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Directory::parse(&text).with_context(|| file.display().to_string())
}

fn read_policies(config: &Config) -> anyhow::Result<Policies> {
    let environment = config.vault.environment.clone();
    let Some(file) = &config.access.policy else {
        return Policies::builtin(environment).context("the built-in policies");
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Policies::parse(&text, environment).with_context(|| file.display().to_string())
}
