//! Breaking the glass over the wire, on one instance and on several: what counts once counts once.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use prost::Message;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;
use vault_proto::v1::break_glass_service_client::BreakGlassServiceClient;
use vault_proto::v1::security_key_service_client::SecurityKeyServiceClient;
use vault_proto::v1::{self, GrantState, SecondFactorAction, reveal_result};
use vault_tests::authenticator::{Authenticator, Manner};
use vault_tests::fleet::{Fleet, Place};
use vault_tests::postgres::Server;
use vault_tests::site::Site;
use vault_tests::wire::Wire;

pub(crate) const VALUES: [&str; 4] = ["999-31-4101", "999-31-4102", "999-31-4103", "999-31-4104"];

/// Lists a security key for each of two people in the principals file.
pub(crate) fn with_keys(text: &str) -> String {
    [("oncall", 1), ("approver", 2)].into_iter().fold(text.to_owned(), |text, (id, seed)| {
        let line = Authenticator::ed25519(seed).line(id);
        text.replace(&format!("id = \"{id}\"\n"), &format!("id = \"{id}\"\nsecurity_keys = [\"{line}\"]\n"))
    })
}

/// The second factor of a request that has none yet.
pub(crate) async fn touch(
    wire: &Wire,
    seed: u8,
    action: SecondFactorAction,
    request: &impl Message,
) -> v1::SecondFactor {
    static COUNTER: AtomicU32 = AtomicU32::new(1);
    let begin = v1::BeginSecondFactorRequest {
        action: action.into(),
        request_hash: Sha256::digest(request.encode_to_vec()).to_vec().into(),
    };
    let mut keys = SecurityKeyServiceClient::new(wire.channel.clone());
    let begun = keys.begin_second_factor(begin).await.unwrap().into_inner();
    let manner = Manner::good(COUNTER.fetch_add(1, Ordering::SeqCst));
    let signature = Authenticator::ed25519(seed).pem(&begun.text, manner);
    v1::SecondFactor { challenge_id: begun.challenge_id, signature }
}

pub(crate) fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Ten values are told of a grant for ten, by all instances together.
async fn ten_of_ten(home: &Path, addresses: Vec<String>) {
    let to = async |number: usize, who: &str| Wire::to(home, &addresses[number % addresses.len()], who).await;
    let tokens = to(0, "service").await.tokens("ssn", &VALUES).await;
    let oncall = to(0, "oncall").await;
    let mut request = v1::RequestGrantRequest {
        scope: Some(v1::GrantScope { tokens, data_classes: vec!["ssn".to_owned()], ..Default::default() }),
        reason_code: "patient_safety".to_owned(),
        reason: "The patient in bay 4 does not answer".to_owned(),
        values: 10,
        idempotency_key: "once".to_owned(),
        ..Default::default()
    };
    let mut glass = BreakGlassServiceClient::new(oncall.channel.clone());
    let refused = glass.request_grant(request.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "SECOND_FACTOR"));
    request.second_factor = Some(touch(&oncall, 1, SecondFactorAction::GrantRequest, &request).await);
    let grant = glass.request_grant(request).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(grant.state(), GrantState::Requested);

    // Approved on another instance; the same approval is good for nothing more, wherever.
    let approver = to(1, "approver").await;
    let mut approvals = BreakGlassServiceClient::new(approver.channel.clone());
    let get = v1::GetGrantRequest { grant_id: grant.id.clone(), ..Default::default() };
    let terms_hash = approvals.get_grant(get.clone()).await.unwrap().into_inner().terms_hash;
    let mut approval =
        v1::ApproveGrantRequest { grant_id: grant.id.clone(), terms_hash, ..Default::default() };
    approval.second_factor = Some(touch(&approver, 2, SecondFactorAction::GrantApprove, &approval).await);
    let active = approvals.approve_grant(approval.clone()).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(
        (active.state(), active.approvers.as_slice()),
        (GrantState::Active, &["approver".to_owned()][..])
    );
    for number in 0..addresses.len() {
        let mut elsewhere = BreakGlassServiceClient::new(to(number, "approver").await.channel);
        let refused = elsewhere.approve_grant(approval.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "GRANT_STATE");
    }

    let mut tasks = JoinSet::new();
    for client in 0..32 {
        let mut glass = BreakGlassServiceClient::new(to(client, "oncall").await.channel);
        let reveal = v1::RevealRequest {
            grant_id: grant.id.clone(),
            tokens: grant.tokens[..=2 * (client % 2)].to_vec(),
            ..Default::default()
        };
        tasks.spawn(async move {
            let mut told = 0;
            loop {
                match glass.reveal(reveal.clone()).await {
                    Ok(answer) => {
                        let results = answer.into_inner().results;
                        let value = |result: &v1::RevealResult| match &result.outcome {
                            Some(reveal_result::Outcome::Value(value)) => {
                                assert!(VALUES.iter().any(|known| known.as_bytes() == value.data));
                                true
                            }
                            _ => false,
                        };
                        told += results.iter().filter(|result| value(result)).count();
                    }
                    Err(status) if status.code() == Code::FailedPrecondition => return told,
                    // So many at once: try again.
                    Err(status) => assert_eq!(reason(&status), "OVERLOADED", "{status:?}"),
                }
            }
        });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 10);
    let grant = approvals.get_grant(get).await.unwrap().into_inner().grant.unwrap();
    assert_eq!((grant.values_seen, grant.state(), grant.ended.as_str()), (10, GrantState::Over, "used_up"));
    let entries = to(0, "auditor").await.entries("detokenize").await;
    let opened = entries.iter().filter(|entry| entry.grant == grant.id).flat_map(|entry| &entry.items);
    assert_eq!(opened.filter(|item| item.outcome == 1).count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_ten_values_gives_ten_on_one_instance() {
    let dir = TempDir::new().unwrap();
    let (site, vault) = tokio::task::block_in_place(|| {
        let site = Site::make(&dir.path().join("vault"));
        site.edit("principals.toml", |text| with_keys(&text));
        let vault = site.serve();
        (site, vault)
    });
    ten_of_ten(site.dir(), vec![vault.address().to_owned()]).await;
    assert_eq!(tokio::task::block_in_place(|| vault.stop()), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_ten_values_gives_ten_on_three_instances() {
    let dir = TempDir::new().unwrap();
    let Some(server) = Server::shared() else { return };
    let home = dir.path().join("vault");
    let fleet = tokio::task::block_in_place(|| {
        let place = Place::of_url(&server.url(&server.create_database()));
        let fleet = Fleet::make(&home, &place, 3);
        let file = home.join("principals.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, with_keys(&text)).unwrap();
        fleet.start_all();
        fleet
    });
    ten_of_ten(&home, (0..fleet.len()).map(|number| fleet.address(number)).collect()).await;
    tokio::task::block_in_place(|| fleet.stop_all());
}
