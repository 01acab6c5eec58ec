//! `vault.v1.AuditService`.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::audit_service_server::AuditService;

use crate::access::{Action, Credential};
use crate::audit::{AuditAction, Hit, LogId};
use crate::domain::{Environment, GrantId, PrincipalId, SubjectId, Timestamp, Token};
use crate::vault::{AuditQuery, Problem, Refused, Vault};

use super::peer;
use super::serve::serve;
use super::status::status;

pub(super) struct AuditApi {
    vault: Arc<Vault>,
}

impl AuditApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn query(
        &self,
        request: Request<v1::AuditQueryRequest>,
    ) -> Result<Response<v1::AuditQueryResponse>, Status> {
        serve(&self.vault, AuditAction::AuditQuery, request, async |vault, cx, request| {
            let tenant = request.tenant.clone();
            let query = query(request, &vault.identity().environment);
            let page = vault.audit_query(cx, &tenant, query).await?;
            let entries = page.entries.into_iter();
            Ok(v1::AuditQueryResponse {
                entries: entries
                    .map(|Hit { log, sequence, entry }| v1::AuditRecord {
                        log: log.0,
                        sequence,
                        entry: Some(entry),
                    })
                    .collect(),
                next: page.next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn list_logs(
        &self,
        request: Request<v1::ListLogsRequest>,
    ) -> Result<Response<v1::ListLogsResponse>, Status> {
        serve(
            &self.vault,
            AuditAction::AuditCheckpoint,
            request,
            async |vault, cx, v1::ListLogsRequest {}| {
                let logs = vault.audit_logs(cx).await?.into_iter();
                let logs =
                    logs.map(|(LogId(log), origin, size)| v1::AuditLog { log, origin, size }).collect();
                Ok(v1::ListLogsResponse { logs })
            },
        )
        .await
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        serve(&self.vault, AuditAction::AuditCheckpoint, request, async |vault, cx, request| {
            let v1::GetCheckpointRequest { fresh, log } = request;
            let signed = vault.checkpoint(cx, LogId(log), fresh).await?;
            Ok(v1::GetCheckpointResponse {
                checkpoint: signed.checkpoint,
                verifier_key: signed.verifier,
                signing_keys: signed.statements,
            })
        })
        .await
    }

    type GetEntriesStream = Pin<Box<dyn Stream<Item = Result<v1::GetEntriesResponse, Status>> + Send>>;

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let credential = peer::credential(request.extensions())?;
        serve(&self.vault, AuditAction::AuditExport, request, async |vault, cx, request| {
            let v1::GetEntriesRequest { start, end, log } = request;
            vault.audit_export(cx, LogId(log), start, end).await?;
            Ok(entries(Arc::clone(vault), Arc::clone(&credential), LogId(log), start, end))
        })
        .await
    }
}

/// Streams leaves, a message's worth at a time, as fast as the reader takes them. Whether the reader still may is asked
/// for each.
fn entries(
    vault: Arc<Vault>,
    credential: Arc<Credential>,
    log: LogId,
    start: u64,
    end: u64,
) -> Pin<Box<dyn Stream<Item = Result<v1::GetEntriesResponse, Status>> + Send>> {
    Box::pin(futures::stream::try_unfold(
        (vault, credential, start),
        move |(vault, credential, start)| async move {
            if start >= end {
                return Ok(None);
            }
            let may = vault.enter_for(&credential, AuditAction::AuditExport, Action::AuditExport, None).await;
            may.map_err(|refused| status(&refused))?;
            let leaves = vault.leaves(log, start, end).await.map_err(|refused| status(&refused))?;
            if leaves.is_empty() {
                return Err(status(&Problem::StoreUnavailable.whole()));
            }
            let next = start + leaves.len() as u64;
            Ok(Some((v1::GetEntriesResponse { start, leaves }, (vault, credential, next))))
        },
    ))
}

fn query(request: v1::AuditQueryRequest, environment: &Environment) -> Result<AuditQuery, Refused> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let time = |us: u64| (us != 0).then_some(Timestamp(us));
    let subject = some(request.subject)
        .map(|id| SubjectId::parse(id).ok_or_else(|| Problem::Field("1 to 256 bytes").at("subject")))
        .transpose()?;
    let principal = some(request.principal)
        .map(|name| {
            PrincipalId::parse(&name).map_err(|_| Problem::Field("a principal's name").at("principal"))
        })
        .transpose()?;
    let action = some(request.action)
        .map(|name| {
            let name = format!("ACTION_{}", name.to_ascii_uppercase());
            AuditAction::from_str_name(&name)
                .ok_or_else(|| Problem::Field("a name of an action").at("action"))
        })
        .transpose()?;
    let grant = some(request.grant)
        .map(|id| GrantId::parse(&id).map_err(|_| Problem::Field("32 hexadecimal digits").at("grant")))
        .transpose()?;
    Ok(AuditQuery {
        token: some(request.token).map(|text| Token::parse(&text, environment).map_err(Problem::Token)),
        subject,
        principal,
        action,
        grant,
        since: time(request.since_us),
        until: time(request.until_us),
        limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
        page: request.page,
        oldest_first: request.oldest_first,
    })
}
