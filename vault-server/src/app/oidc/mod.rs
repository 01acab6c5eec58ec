//! People who come by an identity provider: the configuration's issuers, and their keys, which are asked for in the
//! background. While an issuer does not answer, the keys that it had stay in force, until they are too old; sessions that
//! are open, and callers with certificates, need no issuer.

mod fetch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use self::fetch::Source;
use super::config::{Config, Oidc, OidcIssuer};
use crate::access::SessionRules;
use crate::access::oidc::{Issuer, IssuerRules, Issuers};
use crate::vault::{Sessions, Vault};

/// How often an issuer that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(15);
/// How often sessions that are over are taken away.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// What `[oidc]` says, ready to be used.
pub(super) struct People {
    issuers: Vec<(Arc<Issuer>, Source)>,
    refresh_every: Duration,
}

impl People {
    /// Reads the authorities' certificates. Asks nobody for anything.
    pub(super) fn new(oidc: &Oidc) -> anyhow::Result<Self> {
        let ready = |issuer: &OidcIssuer| {
            let source = Source::new(issuer, oidc.timeout).with_context(|| issuer.issuer.clone())?;
            Ok((Arc::new(Issuer::new(rules(oidc, issuer))), source))
        };
        let issuers = oidc.issuer.iter().map(ready).collect::<anyhow::Result<_>>()?;
        Ok(Self { issuers, refresh_every: oidc.refresh_every })
    }

    /// For the use cases.
    pub(super) fn sessions(&self, config: &Config) -> Sessions {
        let issuers = self.issuers.iter().map(|(issuer, _)| Arc::clone(issuer)).collect();
        let sessions = &config.sessions;
        let rules = SessionRules {
            idle: sessions.idle,
            lifetime: sessions.lifetime,
            per_principal: sessions.per_principal,
        };
        Sessions::new(Issuers::new(issuers), rules)
    }

    /// Begins to ask for keys, and to sweep.
    pub(super) fn run(self, vault: &Arc<Vault>, stopping: &CancellationToken) {
        for (issuer, source) in self.issuers {
            tokio::spawn(keep_keys(issuer, source, self.refresh_every, stopping.clone()));
        }
        tokio::spawn(sweep(Arc::clone(vault), stopping.clone()));
    }
}

fn rules(oidc: &Oidc, issuer: &OidcIssuer) -> IssuerRules {
    IssuerRules {
        issuer: issuer.issuer.clone(),
        audience: issuer.audience.clone(),
        algorithms: issuer.algorithms.clone(),
        accept_jwt: issuer.accept_jwt,
        max_auth_age: issuer.max_auth_age,
        acr: issuer.acr.clone(),
        amr: issuer.amr.clone(),
        single_use: issuer.single_use,
        keys_max_age: oidc.keys_max_age,
        unknown_every: oidc.unknown_key_every,
    }
}

async fn keep_keys(issuer: Arc<Issuer>, source: Source, every: Duration, stopping: CancellationToken) {
    let name = issuer.rules().issuer.clone();
    loop {
        let fetched = tokio::select! {
            () = stopping.cancelled() => return,
            fetched = source.keys() => fetched,
        };
        let pause = match fetched {
            Ok(keys) => {
                tracing::debug!(issuer = name, keys = keys.len(), "an identity provider's keys are known");
                issuer.put_keys(keys);
                every
            }
            Err(error) => {
                tracing::warn!(
                    issuer = name,
                    error = format!("{error:#}"),
                    "an identity provider does not give its keys: those that it had stay in force for now"
                );
                every.min(AGAIN)
            }
        };
        issuer.attempted();
        tokio::select! {
            () = stopping.cancelled() => return,
            () = issuer.wanted() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn sweep(vault: Arc<Vault>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => vault.sweep_sessions().await,
        }
    }
}
