//! The logs of a vault, by their numbers.

use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;
use vault_proto::v1;
use vault_tests::process::DevVault;
use vault_tests::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_are_listed_and_a_log_that_is_not_there_is_refused_on_record() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("vault");
    let vault = tokio::task::block_in_place(|| DevVault::start(&home));
    let mut auditor = Wire::connect(&vault, "auditor").await;

    let fresh = v1::GetCheckpointRequest { fresh: true, log: 0 };
    let checkpoint = auditor.audit.get_checkpoint(fresh).await.unwrap().into_inner();
    let logs = auditor.audit.list_logs(v1::ListLogsRequest {}).await.unwrap().into_inner().logs;
    let own = &logs[0];
    assert_eq!((own.log, own.origin.as_str()), (0, checkpoint.checkpoint.lines().next().unwrap()));
    assert!(own.size > 0 && checkpoint.verifier_key.starts_with(&format!("{}+", own.origin)));

    let absent = v1::GetCheckpointRequest { fresh: false, log: 4711 };
    let of_checkpoint = auditor.audit.get_checkpoint(absent).await.unwrap_err();
    let absent = v1::GetEntriesRequest { start: 0, end: 0, log: 4711 };
    let of_entries = auditor.audit.get_entries(absent).await.unwrap_err();
    for (status, action) in [(of_checkpoint, "audit_checkpoint"), (of_entries, "audit_export")] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "log");
        let id = status.get_details_request_info().unwrap().request_id;
        let entries = auditor.entries(action).await;
        let entry = entries.iter().find(|entry| hex::encode(&entry.request_id) == id).unwrap();
        assert_eq!((entry.cause.as_str(), entry.details["log"].as_str()), ("field_invalid", "4711"));
    }

    // Who may not have a checkpoint may not know of the logs either.
    let mut service = Wire::connect(&vault, "service").await;
    let refused = service.audit.list_logs(v1::ListLogsRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let id = refused.get_details_request_info().unwrap().request_id;
    let entries = auditor.entries("audit_checkpoint").await;
    assert!(entries.iter().any(|entry| hex::encode(&entry.request_id) == id));
}
