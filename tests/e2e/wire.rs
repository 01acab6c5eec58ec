//! What the API answers, seen by a client that does nothing for the vault: codes, order, sizes, details, streams.

use std::time::{Duration, Instant};

use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use vault_proto::v1::{self, Reason, audit_entry::Decision, audit_item::Outcome, detokenize_stream_response};
use vault_tests::process::DevVault;
use vault_tests::site::Site;
use vault_tests::wire::{Wire, detokenize, item, token, value};

const SSNS: [&str; 8] = [
    "999-31-4101",
    "999-31-4102",
    "999-31-4103",
    "999-31-4104",
    "999-31-4105",
    "999-31-4106",
    "999-31-4107",
    "999-31-4108",
];

/// A good token of this environment that names no record: any value will do, if its check holds.
fn unknown() -> String {
    use vault_server::domain::{Environment, Token};
    Token::from_bytes([7; 16]).encode(&Environment::parse("dev").unwrap())
}

fn tokenize(items: Vec<v1::TokenizeItem>, key: &str) -> v1::TokenizeRequest {
    v1::TokenizeRequest { items, idempotency_key: key.to_owned(), ..v1::TokenizeRequest::default() }
}

async fn dev(dir: &TempDir) -> (DevVault, Wire) {
    let home = dir.path().join("vault");
    let vault = tokio::task::block_in_place(|| DevVault::start(&home));
    let service = Wire::connect(&vault, "service").await;
    (vault, service)
}

/// The entry that belongs to a refused call: found by the request's id, which the error carries.
async fn logged(vault: &DevVault, action: &str, status: &Status) -> v1::AuditEntry {
    let id = status.get_details_request_info().expect("a request's id").request_id;
    let entries = Wire::connect(vault, "auditor").await.entries(action).await;
    let entry = entries.into_iter().find(|entry| hex::encode(&entry.request_id) == id);
    entry.expect("the refusal is in the log")
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_items_are_refused_and_the_refusal_is_logged() {
    let dir = TempDir::new().unwrap();
    let (vault, mut service) = dev(&dir).await;
    let status = service.vault.detokenize(detokenize("", &vec![unknown(); 100_001])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MANY_ITEMS");
    let entry = logged(&vault, "detokenize", &status).await;
    assert_eq!((entry.decision(), entry.cause.as_str()), (Decision::Deny, "too_many_items"));
    let status = service.vault.tokenize(tokenize(vec![item("zip", "02118"); 100_001], "")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(logged(&vault, "tokenize", &status).await.cause, "too_many_items");
    // One less is served.
    let answer = service.vault.detokenize(detokenize("", &vec![unknown(); 100_000])).await.unwrap();
    assert_eq!(answer.into_inner().results.len(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_item_at_any_place_neither_fails_nor_hides_the_others() {
    let dir = TempDir::new().unwrap();
    let (_vault, mut service) = dev(&dir).await;
    for bad in 0..SSNS.len() {
        let mut items: Vec<_> = SSNS.iter().map(|value| item("ssn", value)).collect();
        items[bad] = item("ssn", "999-3x-4101");
        let results = service.vault.tokenize(tokenize(items, "")).await.unwrap().into_inner().results;
        assert_eq!(results.len(), SSNS.len());
        let mut tokens = Vec::new();
        for (place, result) in results.iter().enumerate() {
            match token(result) {
                Ok(token) if place != bad => tokens.push(token),
                Err(error) if place == bad => {
                    assert_eq!(error.code, Code::InvalidArgument as i32);
                    assert_eq!(error.reason(), Reason::ValueInvalid);
                    assert_eq!(error.field, format!("items[{bad}].value"));
                    tokens.push("no token".to_owned());
                }
                other => panic!("item {place} of {bad}: {}", other.is_ok()),
            }
        }
        let values = service.values("", &tokens).await;
        for (place, value) in values.iter().enumerate() {
            match value {
                Ok(value) => assert_eq!(value, SSNS[place], "item {place}, {bad} is bad"),
                Err(error) => {
                    assert_eq!((place, error.reason()), (bad, Reason::TokenMalformed));
                    assert_eq!(error.field, format!("tokens[{bad}]"));
                }
            }
        }
        assert_eq!(values.iter().filter(|value| value.is_err()).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_write_gives_the_same_tokens_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    site.add_service("second", "demo");
    let vault = site.dev();
    let mut service = Wire::connect(&vault, "service").await;
    let request = || tokenize(vec![item("ssn", SSNS[0]), item("ssn", "bad"), item("ssn", SSNS[1])], "key-1");
    let first = service.vault.tokenize(request()).await.unwrap().into_inner();
    assert!(token(&first.results[0]).is_ok() && token(&first.results[1]).is_err());
    assert_eq!(service.vault.tokenize(request()).await.unwrap().into_inner(), first);
    vault.stop();
    let vault = site.dev();
    let mut service = Wire::connect(&vault, "service").await;
    assert_eq!(service.vault.tokenize(request()).await.unwrap().into_inner(), first);

    let other = tokenize(vec![item("ssn", SSNS[2])], "key-1");
    let status = service.vault.tokenize(other.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "IDEMPOTENCY_CONFLICT");
    assert_eq!(logged(&vault, "tokenize", &status).await.cause, "idempotency_conflict");

    let mut second = Wire::connect(&vault, "second").await;
    let theirs = second.vault.tokenize(request()).await.unwrap().into_inner();
    assert_ne!(token(&theirs.results[0]).unwrap(), token(&first.results[0]).unwrap());
    assert!(token(&service.vault.tokenize(request()).await.unwrap().into_inner().results[0]).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_purpose_is_refused_with_details_and_logged() {
    let dir = TempDir::new().unwrap();
    let (vault, mut service) = dev(&dir).await;
    let tokens = service.tokens("ssn", &SSNS[..1]).await;
    let request = v1::DetokenizeRequest { purpose: String::new(), ..detokenize("", &tokens) };
    let status = service.vault.detokenize(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("PURPOSE_MISSING", "phi-vault"));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "purpose");
    let entry = logged(&vault, "detokenize", &status).await;
    assert_eq!((entry.decision(), entry.cause.as_str()), (Decision::Deny, "purpose_missing"));
    assert_eq!(entry.actor.unwrap().principal, "service");
}

#[tokio::test(flavor = "multi_thread")]
async fn error_details_name_the_field_and_not_its_value() {
    let dir = TempDir::new().unwrap();
    let (_vault, mut service) = dev(&dir).await;
    let secret = "Quillfeather\u{7f}";
    let status = service.vault.tokenize(tokenize(vec![item("ssn", SSNS[0])], secret)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "idempotency_key");
    assert!(status.get_details_request_info().is_some() && status.get_details_error_info().is_some());
    let everything = [status.message().as_bytes(), status.details()].concat();
    assert!(!String::from_utf8_lossy(&everything).contains("Quillfeather"));
    for (class, value) in [("ssn", "Quillfeather"), ("Quillfeather", "x"), ("dob", "Quillfeather")] {
        let request = tokenize(vec![item(class, value)], "");
        let answer = service.vault.tokenize(request).await.unwrap().into_inner();
        let error = token(&answer.results[0]).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument as i32);
        assert!(!String::from_utf8_lossy(&answer.encode_to_vec()).contains("Quillfeather"), "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_foreign_and_hidden_tokens_are_answered_alike() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    site.add_service("elsewhere", "other");
    site.use_policies(&format!(
        "{}\n@id(\"hidden\")\nforbid (principal, action == Action::\"detokenize\", resource == DataClass::\"mrn\");\n",
        include_str!("../../vault-server/policies/default.cedar"),
    ));
    let vault = site.dev();
    let mut service = Wire::connect(&vault, "service").await;
    let known = service.tokens("ssn", &SSNS[..1]).await.remove(0);
    let hidden = service.tokens("mrn", &["12345678"]).await.remove(0);
    let foreign = Wire::connect(&vault, "elsewhere").await.tokens("ssn", &SSNS[..1]).await.remove(0);
    let all = [known, unknown(), foreign, hidden];
    let request = detokenize("", &all);
    let results = service.vault.detokenize(request).await.unwrap().into_inner().results;
    assert!(value(results[0].clone()).is_ok());
    let error = value(results[1].clone()).unwrap_err();
    assert_eq!((error.code, error.reason()), (Code::NotFound as i32, Reason::NotFound));
    for result in &results[2..] {
        assert_eq!(result.encode_to_vec(), results[1].encode_to_vec());
    }
    // Alone, too, and the log knows which is which.
    for token in &all[1..] {
        let answer = service.vault.detokenize(detokenize("", std::slice::from_ref(token))).await.unwrap();
        assert_eq!(answer.into_inner().results[0].encode_to_vec(), results[1].encode_to_vec());
    }
    let entries = Wire::connect(&vault, "auditor").await.entries("detokenize").await;
    let batch = entries.iter().find(|entry| entry.items.len() == all.len()).unwrap();
    let outcomes: Vec<_> = batch.items.iter().map(v1::AuditItem::outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Unknown, Outcome::ForeignTenant, Outcome::Denied]);
}

/// What is decided on one class says nothing of another, whichever comes first, and even of what has no value any more.
#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_a_request_is_decided_by_itself() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    site.use_policies(&format!(
        "{}\n@id(\"hidden\")\nforbid (principal, action == Action::\"detokenize\", resource == DataClass::\"mrn\");\n",
        include_str!("../../vault-server/policies/default.cedar"),
    ));
    let vault = site.dev();
    let mut service = Wire::connect(&vault, "service").await;
    let shown = service.tokens("ssn", &SSNS[..2]).await;
    let hidden = service.tokens("mrn", &["12345678", "87654321"]).await;
    let (ssn, mrn) = ([&shown[0], &shown[1]], [&hidden[0], &hidden[1]]);
    let erase =
        v1::EraseRequest { tokens: vec![ssn[1].clone(), mrn[1].clone()], ..v1::EraseRequest::default() };
    service.vault.erase(erase).await.unwrap();
    let orders: [[&String; 4]; 4] = [
        [ssn[0], ssn[1], mrn[0], mrn[1]],
        [mrn[0], mrn[1], ssn[0], ssn[1]],
        [mrn[1], ssn[1], mrn[0], ssn[0]],
        [ssn[1], mrn[1], ssn[0], mrn[0]],
    ];
    for order in orders {
        let tokens: Vec<String> = order.into_iter().cloned().collect();
        let answer = service.vault.detokenize(detokenize("", &tokens)).await.unwrap().into_inner();
        for (token, result) in order.into_iter().zip(answer.results) {
            let told = value(result).map_err(|error| error.reason());
            match token {
                token if token == ssn[0] => assert!(told.is_ok()),
                token if token == ssn[1] => assert_eq!(told.unwrap_err(), Reason::Erased),
                _ => assert_eq!(told.unwrap_err(), Reason::NotFound),
            }
        }
    }
    let entries = Wire::connect(&vault, "auditor").await.entries("detokenize").await;
    assert_eq!(entries.len(), orders.len());
    for entry in entries {
        assert!(
            entry.policies.len() > 1 && entry.policies.contains(&"hidden".to_owned()),
            "{:?}",
            entry.policies
        );
        let denied = entry.items.iter().filter(|item| item.outcome() == Outcome::Denied);
        assert_eq!(denied.count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_an_answer_does_not_tell_the_value() {
    let dir = TempDir::new().unwrap();
    let (_vault, mut service) = dev(&dir).await;
    let mut sizes = Vec::new();
    for (class, value) in [("name", "O'Neil"), ("ssn", SSNS[0]), ("name", "Quillfeather-Haldane")] {
        let tokens = service.tokens(class, &[value]).await;
        let answer = service.vault.detokenize(detokenize("", &tokens)).await.unwrap().into_inner();
        sizes.push(answer.encoded_len());
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

/// Answers of a detokenize stream, sent one message at a time.
struct Conversation {
    to: mpsc::Sender<v1::DetokenizeStreamRequest>,
    from: tonic::Streaming<v1::DetokenizeStreamResponse>,
}

impl Conversation {
    async fn open(service: &mut Wire) -> Self {
        let (to, messages) = mpsc::channel(16);
        let from = service.vault.detokenize_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { to, from }
    }

    async fn say(&self, sequence: u64, request: v1::DetokenizeRequest) {
        self.to.send(v1::DetokenizeStreamRequest { sequence, request: Some(request) }).await.unwrap();
    }

    async fn hear(&mut self) -> (u64, Result<v1::DetokenizeResponse, v1::ItemError>) {
        let answer = self.from.message().await.unwrap().expect("the stream goes on");
        let outcome = match answer.outcome.unwrap() {
            detokenize_stream_response::Outcome::Response(response) => Ok(response),
            detokenize_stream_response::Outcome::Error(error) => Err(error),
        };
        (answer.sequence, outcome)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_order_and_outlives_a_bad_message() {
    let dir = TempDir::new().unwrap();
    let (_vault, mut service) = dev(&dir).await;
    let tokens = service.tokens("ssn", &SSNS).await;
    let mut stream = Conversation::open(&mut service).await;
    for round in 0..25 {
        for (place, token) in tokens.iter().enumerate() {
            let mut request = detokenize("", std::slice::from_ref(token));
            if place == 3 {
                request.purpose = "NOSUCH".to_owned();
            }
            stream.say(round * 8 + place as u64, request).await;
        }
        for (place, ssn) in SSNS.iter().enumerate() {
            let (sequence, answer) = stream.hear().await;
            assert_eq!(sequence, round * 8 + place as u64);
            match answer {
                Ok(mut answer) => assert_eq!(&value(answer.results.remove(0)).unwrap(), ssn),
                Err(error) => assert_eq!((place, error.reason()), (3, Reason::PurposeUnknown)),
            }
        }
    }
    drop(stream.to);
    assert!(stream.from.message().await.unwrap().is_none(), "it ends when the caller ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_disabled_in_mid_stream_is_refused_within_seconds() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    let vault = site.dev();
    let mut service = Wire::connect(&vault, "service").await;
    let tokens = service.tokens("ssn", &SSNS[..1]).await;
    let mut stream = Conversation::open(&mut service).await;
    stream.say(0, detokenize("", &tokens)).await;
    assert!(stream.hear().await.1.is_ok());
    site.edit("principals.toml", |text| {
        text.replacen("id = \"service\"", "id = \"service\"\nenabled = false", 1)
    });
    let begin = Instant::now();
    for sequence in 1.. {
        stream.say(sequence, detokenize("", &tokens)).await;
        if let (_, Err(error)) = stream.hear().await {
            assert_eq!(
                (error.code, error.reason()),
                (Code::Unauthenticated as i32, Reason::PrincipalUnknown)
            );
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(12), "still served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let entries = Wire::connect(&vault, "auditor").await.entries("detokenize").await;
    assert_eq!(entries[0].decision(), Decision::Deny);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_expired_or_of_a_stranger_are_refused() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    let service = "spiffe://dev.phi-vault.internal/service";
    site.issue("good", service, true, (2040, 1, 1));
    site.issue("expired", service, true, (2021, 1, 1));
    site.issue("stranger", service, false, (2040, 1, 1));
    site.issue("nobody", "spiffe://dev.phi-vault.internal/nobody", true, (2040, 1, 1));
    let vault = site.dev();
    let request = || tokenize(vec![item("ssn", SSNS[0])], "");
    // The control: a certificate made the same way is let in.
    assert!(Wire::connect(&vault, "good").await.vault.tokenize(request()).await.is_ok());
    for identity in ["expired", "stranger"] {
        if let Ok(mut wire) = Wire::try_connect(&vault, identity).await {
            let status = wire.vault.tokenize(request()).await.unwrap_err();
            assert!(status.details().is_empty(), "{identity}: the vault itself answered: {status:?}");
        }
    }
    let status = Wire::connect(&vault, "nobody").await.vault.tokenize(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let entry = logged(&vault, "tokenize", &status).await;
    assert_eq!(entry.decision(), Decision::Deny);
    assert_eq!(entry.actor.unwrap().identity, "spiffe://dev.phi-vault.internal/nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let dir = TempDir::new().unwrap();
    let (_vault, service) = dev(&dir).await;
    let mut health = HealthClient::new(service.channel.clone());
    for name in ["", "vault.v1.VaultService", "vault.v1.AuditService", "vault.v1.KeyService", "kms"] {
        let answer = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{name:?}");
    }
    let mut reflection = ServerReflectionClient::new(service.channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in
        ["vault.v1.VaultService", "vault.v1.AuditService", "vault.v1.KeyService", "grpc.health.v1.Health"]
    {
        assert!(names.iter().any(|there| there == name), "{name} is not in {names:?}");
    }
}
