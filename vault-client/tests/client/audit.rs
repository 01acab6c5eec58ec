//! `vaultctl audit` on a vault with several logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use prost::Message as _;
use serde_json::Value;
use tonic::{Request, Response, Status};
use vault_format::checkpoint::Checkpoint;
use vault_format::note::Signer;
use vault_format::tree::{Frontier, Hash};
use vault_proto::v1::audit_service_server::AuditService;
use vault_proto::v1::*;

use crate::cli::{Setup, code, err, out, setup};
use crate::fake::State;

const VAULT: &str = "phi-vault/dev/v";

fn origin(log: u32) -> String {
    if log == 0 { VAULT.to_owned() } else { format!("{VAULT}/{log}") }
}

/// The checkpoint of the first `size` entries of a log.
fn checkpoint(leaves: &[Vec<u8>], signer: &Signer) -> String {
    let mut tree = Frontier::new();
    for leaf in leaves {
        tree.push(Hash::leaf(leaf));
    }
    let origin = signer.verifier().name().to_owned();
    Checkpoint { origin, size: leaves.len() as u64, root: tree.root() }.sign(signer).unwrap()
}

fn signer(log: u32) -> Signer {
    Signer::from_seed(&origin(log), &[9; 32]).unwrap()
}

/// Serves the logs it is given.
pub(crate) struct FakeAudit(pub(crate) Arc<State>);

#[tonic::async_trait]
impl AuditService for FakeAudit {
    async fn list_logs(&self, _: Request<ListLogsRequest>) -> Result<Response<ListLogsResponse>, Status> {
        let logs = self.0.logs.lock().unwrap();
        let one = |(log, leaves): (&u32, &Vec<Vec<u8>>)| AuditLog {
            log: *log,
            origin: origin(*log),
            size: leaves.len() as u64,
        };
        Ok(Response::new(ListLogsResponse { logs: logs.iter().map(one).collect() }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let GetCheckpointRequest { log, fresh } = request.into_inner();
        assert!(fresh, "an export has all entries");
        let signer = signer(log);
        let checkpoint = checkpoint(&self.0.logs.lock().unwrap()[&log], &signer);
        Ok(Response::new(GetCheckpointResponse {
            checkpoint,
            verifier_key: signer.verifier().to_key(),
            signing_keys: String::new(),
        }))
    }

    type GetEntriesStream = BoxStream<'static, Result<GetEntriesResponse, Status>>;

    async fn get_entries(
        &self,
        request: Request<GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let GetEntriesRequest { log, start, end } = request.into_inner();
        let leaves = self.0.logs.lock().unwrap()[&log][start as usize..end as usize].to_vec();
        let leaves = leaves.into_iter().map(Into::into).collect();
        Ok(Response::new(Box::pin(stream::iter([Ok(GetEntriesResponse { start, leaves })]))))
    }

    async fn query(&self, _: Request<AuditQueryRequest>) -> Result<Response<AuditQueryResponse>, Status> {
        let record = |log, sequence| AuditRecord { log, sequence, entry: Some(AuditEntry::default()) };
        Ok(Response::new(AuditQueryResponse {
            entries: vec![record(0, 5), record(3, 5)],
            next: String::new(),
        }))
    }
}

/// So many leaves, other ones in each log.
fn leaves(log: u32, count: u8) -> Vec<Vec<u8>> {
    let entry = |i| AuditEntry {
        version: 1,
        time_us: u64::from(log) * 1000 + u64::from(i),
        request_id: vec![i; 16].into(),
        parts: 1,
        ..Default::default()
    };
    (0..count).map(|i| entry(i).encode_to_vec()).collect()
}

/// A vault with these logs, exported to `log`.
async fn exported(logs: &[(u32, u8)]) -> Setup {
    let setup = setup().await;
    *setup.server.state.logs.lock().unwrap() =
        logs.iter().map(|(log, count)| (*log, leaves(*log, *count))).collect::<BTreeMap<_, _>>();
    let ran = setup.run(&["audit", "export", "--dir", &setup.path("log")], "").await;
    assert_eq!(code(&ran), 0, "{}", err(&ran));
    setup
}

async fn verify(setup: &Setup, more: &[&str]) -> Output {
    let (dir, key) = (setup.path("log"), setup.path("log.vkey"));
    let mut args = vec!["audit", "verify", "--dir", &dir, "--key", &key];
    args.extend(more);
    setup.run(&args, "").await
}

/// What the verifier complains of, after a change of the export.
async fn problem(change: impl FnOnce(&Path)) -> String {
    let setup = exported(&[(0, 3), (1, 5), (12, 2)]).await;
    change(setup.path("log").as_ref());
    let ran = verify(&setup, &[]).await;
    assert_eq!(code(&ran), 1, "{}", out(&ran));
    err(&ran)
}

#[tokio::test]
async fn a_single_log_is_exported_and_verified_as_ever() {
    let setup = exported(&[(0, 3)]).await;
    assert!(!fs::exists(setup.path("log/logs")).unwrap());
    assert_eq!(out(&verify(&setup, &[]).await), "verified: 3 entries of phi-vault/dev/v\n");
}

#[tokio::test]
async fn each_log_of_a_vault_is_exported_and_verified() {
    let setup = exported(&[(0, 3), (1, 5), (12, 0)]).await;
    let ran = verify(&setup, &[]).await;
    let lines = "verified: 3 entries of phi-vault/dev/v\nverified: 5 entries of phi-vault/dev/v/1\n\
                 verified: 0 entries of phi-vault/dev/v/12\n";
    assert_eq!((code(&ran), out(&ran)), (0, lines.to_owned()), "{}", err(&ran));
    let found: Value = serde_json::from_slice(&verify(&setup, &["--json"]).await.stdout).unwrap();
    assert_eq!((&found["entries"], &found["logs"][1]["entries"]), (&3.into(), &5.into()));
    assert_eq!(found["logs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_changed_byte_in_any_log_is_found_and_the_log_named() {
    let setup = exported(&[(0, 3), (1, 5), (12, 2)]).await;
    let bundle = setup.path("log/logs/12/tile/entries/000.p/2");
    let mut bytes = fs::read(&bundle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let ran = verify(&setup, &[]).await;
    assert_eq!(code(&ran), 1);
    assert!(out(&ran).contains("5 entries of phi-vault/dev/v/1\nNOT VERIFIED: log 12: "), "{}", out(&ran));
    assert!(err(&ran).contains("not verified: log 12: "), "{}", err(&ran));
    let ran = verify(&setup, &["--json"]).await;
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(
        (code(&ran), &found["verified"], &found["logs"][0]["verified"]),
        (1, &false.into(), &true.into())
    );
}

#[tokio::test]
async fn logs_that_are_missing_exchanged_or_of_another_vault_are_found() {
    let said = problem(|dir| fs::remove_dir_all(dir.join("logs/1")).unwrap()).await;
    assert!(said.contains("log 1: checkpoint is missing"), "{said}");
    let said = problem(|dir| fs::remove_file(dir.join("logs/list")).unwrap()).await;
    assert!(said.contains("logs/list"), "{said}");
    let said = problem(|dir| fs::write(dir.join("logs/list"), "0\n1\n").unwrap()).await;
    assert!(said.contains("logs/12 does not belong to the export"), "{said}");
    let said = problem(|dir| {
        fs::rename(dir.join("logs/1"), dir.join("x")).unwrap();
        fs::rename(dir.join("logs/12"), dir.join("logs/1")).unwrap();
        fs::rename(dir.join("x"), dir.join("logs/12")).unwrap();
    });
    let said = said.await;
    assert!(said.contains("log 1: ") && said.contains("log 12: "), "{said}");
    let said = problem(|dir| {
        let other = Signer::from_seed("phi-vault/dev/other/12", &[9; 32]).unwrap();
        fs::write(dir.join("logs/12/checkpoint"), checkpoint(&leaves(12, 2), &other)).unwrap();
    });
    let said = said.await;
    assert!(said.contains("log 12: checkpoint: no signature by a known key"), "{said}");
}

#[tokio::test]
async fn older_checkpoints_are_of_the_log_that_they_name() {
    let setup = exported(&[(0, 3), (1, 5)]).await;
    let kept = |name: &str, log: u32, leaves: &[Vec<u8>]| {
        fs::write(setup.path(name), checkpoint(leaves, &signer(log))).unwrap();
        setup.path(name)
    };
    let (zero, one) = (kept("zero", 0, &leaves(0, 2)), kept("one", 1, &leaves(1, 4)));
    let ran = verify(&setup, &["--old-checkpoint", &zero, "--old-checkpoint", &one]).await;
    assert_eq!(code(&ran), 0, "{}", err(&ran));
    assert!(out(&ran).contains("the first 2 are") && out(&ran).contains("the first 4 are"), "{}", out(&ran));

    let (rewritten, longer) = (kept("rewritten", 1, &leaves(0, 4)), kept("longer", 1, &leaves(1, 6)));
    let gone = kept("gone", 2, &leaves(2, 7));
    for (file, problem) in [
        (&rewritten, "log 1: among the first 4 entries one was changed"),
        (&longer, "log 1: entry 5 is missing: the log had 6 entries"),
        (&gone, "log 2: the log is missing: it had 7 entries"),
    ] {
        let ran = verify(&setup, &["--old-checkpoint", file]).await;
        assert_eq!(code(&ran), 1, "{problem}");
        assert!(err(&ran).contains(problem), "{}", err(&ran));
    }
    let ran = verify(&setup, &["--old-checkpoint", &one, "--old-checkpoint", &longer]).await;
    assert_eq!(code(&ran), 2, "two of one log");
}

#[tokio::test]
async fn an_entry_of_another_log_is_shown_with_its_number() {
    let setup = exported(&[(0, 1)]).await;
    let shown = out(&setup.run(&["audit", "query"], "").await);
    let places: Vec<_> = shown.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(places, ["5", "3/5"]);
    let ran = setup.run(&["--json", "audit", "query"], "").await;
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&shown["entries"][0]["log"], &shown["entries"][1]["log"]), (&0.into(), &3.into()));
}
