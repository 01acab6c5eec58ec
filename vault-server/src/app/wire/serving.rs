//! What callers meet: the services, who may come in, and whether the vault is well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::figures::ItemCounter;
use super::{Context, rules};
use crate::access::Credential;
use crate::app::config::Config;
use crate::app::observe::Doorkeeper;
use crate::grpc::{self, Observer};
use crate::keyring::Keyring;
use crate::vault::Vault;

/// How often the KMS is asked whether it answers, for the health service `kms`.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The services; their health is told from now on.
pub(super) fn routes(
    config: &Config,
    context: &Context,
    vault: &Arc<Vault>,
    keyring: &Arc<Keyring>,
) -> anyhow::Result<Routes> {
    let observer: Arc<dyn Observer> = Arc::new(ItemCounter(Arc::clone(&context.metrics)));
    let (reporter, health) = tonic_health::server::health_reporter();
    let limits = rules::on_the_wire(config);
    let routes = grpc::routes(vault, &observer, limits, health).context("the reflection service")?;
    tokio::spawn(report_health(reporter, Arc::clone(keyring), context.stopping.clone()));
    Ok(routes)
}

/// `""` and the services are healthy while requests are served; `kms` says whether keys could be opened now.
async fn report_health(
    reporter: tonic_health::server::HealthReporter,
    keyring: Arc<Keyring>,
    stopping: CancellationToken,
) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    const SERVICES: &[&str] = &[
        "",
        "vault.v1.VaultService",
        "vault.v1.AuditService",
        "vault.v1.KeyService",
        "vault.v1.PrincipalService",
        "vault.v1.PolicyService",
        "vault.v1.BreakGlassService",
        "vault.v1.SecurityKeyService",
        "vault.v1.SessionService",
        "vault.v1.HoneytokenService",
    ];
    for &service in SERVICES {
        reporter.set_service_status(service, Serving).await;
    }
    loop {
        let kms = keyring.probe().await;
        if let Err(error) = &kms {
            tracing::warn!(%error, "the KMS does not answer: open keys serve until their lifetime ends");
        }
        reporter.set_service_status("kms", if kms.is_ok() { Serving } else { NotServing }).await;
        tokio::select! {
            () = stopping.cancelled() => break,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
    for &service in SERVICES {
        reporter.set_service_status(service, NotServing).await;
    }
}

/// Asks the vault who may come in.
pub(super) struct Door(pub Arc<Vault>);

#[async_trait]
impl Doorkeeper for Door {
    async fn admit(
        &self,
        connection: &Arc<Credential>,
        headers: &http::HeaderMap,
        path: &str,
    ) -> Result<Arc<Credential>, tonic::Status> {
        grpc::admit(&self.0, connection, headers, path).await
    }

    async fn refused_unread(&self, credential: &Credential, path: &str, cause: &'static str) {
        grpc::refused_unread(&self.0, credential, path, cause).await;
    }
}
