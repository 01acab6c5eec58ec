//! Wire to domain and back, and the one match from problems to status. tonic's types stay in here.

mod audit;
mod bearer;
mod break_glass;
mod honeytokens;
mod keys;
mod parse;
mod peer;
mod policy;
mod principals;
mod security_keys;
mod serve;
mod sessions;
mod status;
mod vault;

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use vault_proto::v1;

use crate::access::Credential;
use crate::audit::AuditAction;
use crate::vault::{Problem, Vault};

pub use peer::PeerIdentity;

/// Bounds of messages and of a stream's read-ahead.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// The largest message that is read or written, in bytes.
    pub message: usize,
    /// How many messages of one stream are served at once.
    pub stream_window: usize,
    /// How many messages of all streams are served at once; more wait.
    pub stream_messages: usize,
    /// A stream without a message for so long is ended.
    pub stream_idle: Duration,
}

/// Counts items; calls are counted around the services.
pub trait Observer: Send + Sync + 'static {
    /// So many items of an action fared well, so many did not.
    fn items(&self, action: &'static str, ok: usize, failed: usize);
}

/// Whose request it is, by what its connection and its headers show. Who nobody knows is turned away, on record.
pub async fn admit(
    vault: &Vault,
    connection: &Arc<Credential>,
    headers: &http::HeaderMap,
    path: &str,
) -> Result<Arc<Credential>, Status> {
    let action = action(path);
    let credential = vault.identify(connection, bearer::of(headers)).await;
    if vault.knows(&credential, action).await {
        return Ok(credential);
    }
    Err(match vault.enter(&credential, action).await {
        // Known since: the caller may come again.
        Ok(_) => status::status(&Problem::Overloaded.whole()),
        Err(refused) => status::status(&refused),
    })
}

/// Puts on record that a message at an rpc's path was refused unread.
pub async fn refused_unread(vault: &Vault, credential: &Credential, path: &str, cause: &'static str) {
    vault.refused_unread(credential, action(path), cause).await;
}

/// What an rpc is in the log.
fn action(path: &str) -> AuditAction {
    match path.rsplit('/').next().unwrap_or_default() {
        "Tokenize" | "TokenizeStream" => AuditAction::Tokenize,
        "Detokenize" | "DetokenizeStream" | "Reveal" => AuditAction::Detokenize,
        "Mask" => AuditAction::Mask,
        "Find" => AuditAction::Find,
        "Describe" => AuditAction::Describe,
        "Erase" => AuditAction::Erase,
        "Query" => AuditAction::AuditQuery,
        "ListLogs" | "GetCheckpoint" => AuditAction::AuditCheckpoint,
        "GetEntries" => AuditAction::AuditExport,
        "ListKeys" => AuditAction::KeyList,
        "RotateKey" => AuditAction::KeyRotate,
        "MarkCompromised" => AuditAction::KeyCompromise,
        "PreviewJob" | "ListJobs" | "WatchJob" => AuditAction::JobRead,
        "StartJob" => AuditAction::JobStart,
        "ApproveJob" => AuditAction::JobApprove,
        "PauseJob" | "ResumeJob" | "CancelJob" => AuditAction::JobControl,
        "WhoAmI" => AuditAction::WhoAmI,
        "ListPrincipals" | "ListPrincipalChanges" => AuditAction::PrincipalRead,
        "PutPrincipal" | "SetPrincipalState" => AuditAction::PrincipalChange,
        "ApprovePrincipalChange" => AuditAction::PrincipalApprove,
        "RejectPrincipalChange" => AuditAction::PrincipalReject,
        "EnrollSecurityKey" | "ConfirmSecurityKey" | "RevokeSecurityKey" => AuditAction::SecurityKeyChange,
        "BeginSecondFactor" => AuditAction::SecondFactorBegin,
        "OpenSession" => AuditAction::SessionOpen,
        "CloseSession" => AuditAction::SessionClose,
        "RequestGrant" => AuditAction::GrantRequest,
        "ApproveGrant" => AuditAction::GrantApprove,
        "DenyGrant" => AuditAction::GrantDeny,
        "CloseGrant" => AuditAction::GrantEnd,
        "ReviewGrant" => AuditAction::GrantReview,
        "ListGrants" | "GetGrant" => AuditAction::GrantRead,
        "CheckPolicies" | "GetMatrix" | "ExplainAccess" => AuditAction::PolicyRead,
        "ListHoneytokens" => AuditAction::HoneytokenRead,
        "PlantHoneytoken" | "RemoveHoneytoken" => AuditAction::HoneytokenChange,
        _ => AuditAction::Unspecified,
    }
}

/// The services of the vault, to be served on a listener that asks [`admit`] of each request, and puts the
/// [`PeerIdentity`] into its extensions.
pub fn routes(
    vault: &Arc<Vault>,
    observer: &Arc<dyn Observer>,
    limits: WireLimits,
    health: HealthServer<impl Health>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let vault_service = v1::vault_service_server::VaultServiceServer::new(vault::VaultApi::new(
        Arc::clone(vault),
        Arc::clone(observer),
        limits,
    ))
    .max_decoding_message_size(limits.message)
    .max_encoding_message_size(limits.message);
    let audit_service =
        v1::audit_service_server::AuditServiceServer::new(audit::AuditApi::new(Arc::clone(vault)))
            .max_decoding_message_size(limits.message);
    let key_service = v1::key_service_server::KeyServiceServer::new(keys::KeyApi::new(Arc::clone(vault)))
        .max_decoding_message_size(limits.message);
    let principal_service = v1::principal_service_server::PrincipalServiceServer::new(
        principals::PrincipalApi::new(Arc::clone(vault)),
    )
    .max_decoding_message_size(limits.message);
    let policy_service =
        v1::policy_service_server::PolicyServiceServer::new(policy::PolicyApi::new(Arc::clone(vault)))
            .max_decoding_message_size(limits.message);
    let break_glass_service = v1::break_glass_service_server::BreakGlassServiceServer::new(
        break_glass::BreakGlassApi::new(Arc::clone(vault), Arc::clone(observer)),
    )
    .max_decoding_message_size(limits.message)
    .max_encoding_message_size(limits.message);
    let security_key_service = v1::security_key_service_server::SecurityKeyServiceServer::new(
        security_keys::SecurityKeyApi::new(Arc::clone(vault)),
    )
    .max_decoding_message_size(limits.message);
    let session_service =
        v1::session_service_server::SessionServiceServer::new(sessions::SessionApi::new(Arc::clone(vault)))
            .max_decoding_message_size(limits.message);
    let honeytoken_service = v1::honeytoken_service_server::HoneytokenServiceServer::new(
        honeytokens::HoneytokenApi::new(Arc::clone(vault)),
    )
    .max_decoding_message_size(limits.message);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(vault_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(vault_service).add_service(audit_service).add_service(key_service);
    let routes = routes.add_service(principal_service).add_service(policy_service);
    let routes = routes.add_service(security_key_service).add_service(break_glass_service);
    let routes = routes.add_service(session_service).add_service(honeytoken_service);
    Ok(routes.add_service(health).add_service(reflection))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_call_of_the_api_has_a_name_in_the_log() {
        let files = prost_types::FileDescriptorSet::decode(vault_proto::FILE_DESCRIPTOR_SET).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let calls: Vec<_> = services.flat_map(|service| &service.method).collect();
        assert!(calls.len() > 20);
        for call in calls {
            let path = format!("/vault.v1.Service/{}", call.name());
            assert_ne!(action(&path), AuditAction::Unspecified, "{path}");
        }
    }
}
