//! What every unary call of a service does around its own work.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::audit::AuditAction;
use crate::vault::{Context, Refused, Vault};

use super::peer;
use super::status::status;

/// Lets the caller in, serves it, and puts a refusal on record that is not yet.
pub(super) async fn serve<Q, A>(
    vault: &Arc<Vault>,
    action: AuditAction,
    request: Request<Q>,
    serve: impl AsyncFnOnce(&Arc<Vault>, &Context, Q) -> Result<A, Refused>,
) -> Result<Response<A>, Status> {
    let credential = peer::credential(request.extensions())?;
    let answer = match vault.enter(&credential, action).await {
        Ok(cx) => match serve(vault, &cx, request.into_inner()).await {
            Ok(answer) => Ok(answer),
            Err(refused) => Err(vault.refuse(&cx, action, refused).await),
        },
        Err(refused) => Err(refused),
    };
    answer.map(Response::new).map_err(|refused| status(&refused))
}
