//! `vault.v1.SessionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::session_service_server::SessionService;

use crate::access::Credential;
use crate::audit::AuditAction;
use crate::vault::{Context, Refused, Vault};

use super::peer;
use super::status::status;

pub(super) struct SessionApi {
    vault: Arc<Vault>,
}

impl SessionApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    async fn serve<Q, A>(
        &self,
        action: AuditAction,
        request: Request<Q>,
        serve: impl AsyncFnOnce(&Vault, &Context, &Credential) -> Result<A, Refused>,
    ) -> Result<Response<A>, Status> {
        let credential = peer::credential(request.extensions())?;
        let answer = match self.vault.enter(&credential, action).await {
            Ok(cx) => match serve(&self.vault, &cx, &credential).await {
                Ok(answer) => Ok(answer),
                Err(refused) => Err(self.vault.refuse(&cx, action, refused).await),
            },
            Err(refused) => Err(refused),
        };
        answer.map(Response::new).map_err(|refused| status(&refused))
    }
}

#[tonic::async_trait]
impl SessionService for SessionApi {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.serve(AuditAction::SessionOpen, request, async |vault, cx, credential| {
            let opened = vault.open_session(cx, credential).await?;
            Ok(v1::OpenSessionResponse {
                // Exposed: to the person whose session it is, and nobody else, once.
                session_token: opened.token.expose().to_owned(),
                ends_us: opened.ends.0,
                idle_s: opened.idle_s,
                principal: cx.caller.principal.id.to_string(),
            })
        })
        .await
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        self.serve(AuditAction::SessionClose, request, async |vault, cx, credential| {
            vault.close_session(cx, credential).await?;
            Ok(v1::CloseSessionResponse {})
        })
        .await
    }
}
