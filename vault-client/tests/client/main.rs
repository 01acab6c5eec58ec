//! The client against a fake vault, over real TLS.
#![expect(clippy::unwrap_used, reason = "tests")]

mod audit;
mod break_glass;
mod cli;
mod fake;
mod keys;
mod pki;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake::{Running, State, token};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use pki::Pki;
use tonic::{Code, Status};
use vault_client::{
    Client, ClientBuilder, DataClass, DetokenizeOptions, EraseOptions, Erased, NewValue, Plaintext, Purpose,
    Reason, RetryPolicy, SubjectId, Token, TokenizeBatch, TokenizeOptions,
};

fn builder(pki: &Pki) -> ClientBuilder {
    Client::builder()
        .ca_file(pki.path("ca.pem"))
        .identity_files(pki.path("client.pem"), pki.path("client.key"))
        .environment("dev")
}

async fn one() -> (Pki, Running, Client) {
    let pki = Pki::new();
    let server = fake::start(&pki, Arc::default()).await;
    let client = builder(&pki).endpoint(server.uri()).connect().unwrap();
    (pki, server, client)
}

fn new(text: impl Into<String>) -> NewValue {
    NewValue::new(DataClass::NAME, Plaintext::new(text.into()))
}

fn unavailable() -> Status {
    Status::unavailable("for a while")
}

fn why() -> DetokenizeOptions {
    DetokenizeOptions::default()
}

#[tokio::test]
async fn values_go_in_and_come_back_and_are_erased() {
    let (_pki, _server, client) = one().await;
    let subject = SubjectId::new("p1".into()).unwrap();
    let token = client.tokenize_one(new("Ada").about(subject)).await.unwrap();
    assert_eq!(client.mask_one(&token).await.unwrap().expose(), "***");
    let value = client.detokenize_one(&token, Purpose::Treatment, &why()).await.unwrap();
    assert_eq!(value.expose(), "Ada");
    let found = client.find(&DataClass::NAME, vec![Plaintext::new("Ada".into())], 0).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().tokens, std::slice::from_ref(&token));
    let known = client.describe(std::slice::from_ref(&token)).await.unwrap().remove(0).unwrap();
    assert_eq!(known.class, "ssn");
    let no_reason = EraseOptions::default();
    let erase = || client.erase_tokens(std::slice::from_ref(&token), &no_reason);
    assert_eq!(erase().await.unwrap().remove(0), Ok(Erased::Now));
    assert_eq!(erase().await.unwrap().remove(0), Ok(Erased::Before));
    let gone = client.detokenize_one(&token, Purpose::Treatment, &why()).await;
    assert_eq!(gone.err().unwrap().reason(), Reason::NotFound);
}

#[tokio::test]
async fn concurrent_single_calls_travel_together_and_get_their_own_answers() {
    let (_pki, server, client) = one().await;
    *server.state.delay.lock().unwrap() = Duration::from_millis(20);
    let tokens = join_all((0..200).map(|n| client.tokenize_one(new(format!("n{n}"))))).await;
    let tokens: Vec<_> = tokens.into_iter().map(Result::unwrap).collect();
    // Two that find nobody under way, and those that come meanwhile together behind each.
    assert!(server.state.calls() <= 4, "{}", server.state.calls());
    let before = server.state.calls();
    let options = why();
    let values =
        join_all(tokens.iter().map(|t| client.detokenize_one(t, Purpose::Treatment, &options))).await;
    for (n, value) in values.into_iter().enumerate() {
        assert_eq!(value.unwrap().expose(), format!("n{n}"));
    }
    assert!(server.state.calls() - before <= 4, "{}", server.state.calls() - before);
}

#[tokio::test]
async fn single_calls_for_different_purposes_never_share_a_request() {
    let (_pki, server, client) = one().await;
    let token = client.tokenize_one(new("Ada")).await.unwrap();
    let options = why();
    let (a, b) = tokio::join!(
        client.detokenize_one(&token, Purpose::Treatment, &options),
        client.detokenize_one(&token, Purpose::Payment, &options),
    );
    assert!(a.is_ok() && b.is_ok());
    let mut purposes: Vec<_> =
        server.state.seen.lock().unwrap()[1..].iter().map(|s| s.detail.clone()).collect();
    purposes.sort();
    assert_eq!(purposes, ["HPAYMT", "TREAT"]);
}

#[tokio::test]
async fn a_tokenize_is_repeated_under_the_same_key_and_kept_once() {
    let (_pki, server, client) = one().await;
    server.state.fail_next(unavailable);
    let token = client.tokenize_one(new("Ada")).await.unwrap();
    let seen = server.state.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].key, seen[1].key);
    assert_eq!(seen[0].key.len(), 36);
    assert_eq!(server.state.values.lock().unwrap().len(), 1);
    assert!(server.state.values.lock().unwrap().contains_key(token.as_str()));
}

#[tokio::test]
async fn nothing_but_unavailable_is_repeated() {
    let (_pki, server, client) = one().await;
    for code in (1..=16).map(Code::from_i32).filter(|code| *code != Code::Unavailable) {
        let before = server.state.calls();
        server.state.fail_next(move || Status::new(code, "no"));
        let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
        assert_eq!(error.code(), code);
        assert_eq!(server.state.calls(), before + 1, "{code:?}");
    }
}

#[tokio::test]
async fn repeats_end_and_can_be_switched_off() {
    let (pki, server, client) = one().await;
    for _ in 0..4 {
        server.state.fail_next(unavailable);
    }
    let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
    assert!(error.is_retryable());
    assert_eq!(server.state.calls(), 4);
    server.state.fail_next(unavailable);
    let never = builder(&pki).endpoint(server.uri()).retry(RetryPolicy::NEVER).connect().unwrap();
    assert!(never.mask(&[token(1).parse().unwrap()]).await.is_err());
    assert_eq!(server.state.calls(), 5);
}

#[tokio::test]
async fn items_in_trouble_that_may_pass_are_asked_for_again_and_no_others() {
    let (pki, server, client) = one().await;
    let names = ["Ada", "Grace", "Edsger"];
    let tokens: Vec<_> = client.tokenize(names.map(new).into()).await.unwrap();
    let tokens: Vec<_> = tokens.into_iter().map(Result::unwrap).collect();
    let items = |from: usize| -> Vec<_> {
        server.state.seen.lock().unwrap()[from..].iter().map(|seen| seen.items).collect()
    };

    server.state.troubles.store(2, Ordering::Relaxed);
    let before = server.state.calls();
    let values = client.detokenize(&tokens, Purpose::Treatment, &why()).await.unwrap();
    let values: Vec<_> = values.iter().map(|value| value.as_ref().unwrap().expose()).collect();
    assert_eq!(values, names);
    assert_eq!(items(before), [3, 1, 1]);

    server.state.troubles.store(1, Ordering::Relaxed);
    let before = server.state.calls();
    let found = client
        .find(&DataClass::EMAIL, names.map(|name| Plaintext::new(name.to_owned())).into(), 0)
        .await
        .unwrap();
    let found: Vec<_> = found.into_iter().flat_map(|found| found.unwrap().tokens).collect();
    assert_eq!(found, tokens);
    assert_eq!(items(before), [3, 1]);

    // Trouble that does not pass is told, and the others have their values.
    server.state.troubles.store(usize::MAX, Ordering::Relaxed);
    let before = server.state.calls();
    let values = client.detokenize(&tokens, Purpose::Treatment, &why()).await.unwrap();
    assert_eq!(values.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(values[1].as_ref().err().unwrap().reason(), Reason::StoreUnavailable);
    assert_eq!(items(before), [3, 1, 1, 1]);
    let never = builder(&pki).endpoint(server.uri()).retry(RetryPolicy::NEVER).connect().unwrap();
    let before = server.state.calls();
    assert!(never.detokenize(&tokens, Purpose::Treatment, &why()).await.unwrap()[1].is_err());
    assert_eq!(items(before), [3]);
}

#[tokio::test]
async fn the_vaults_retry_delay_is_honoured() {
    let (_pki, server, client) = one().await;
    server.state.fail_next(|| {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(300)));
        Status::with_error_details(Code::Unavailable, "later", details)
    });
    let start = Instant::now();
    assert!(client.mask(&[token(1).parse().unwrap()]).await.is_ok());
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_deadline_is_kept_and_told_to_the_vault() {
    let (pki, server, _) = one().await;
    *server.state.delay.lock().unwrap() = Duration::from_secs(30);
    let client = builder(&pki).endpoint(server.uri()).timeout(Duration::from_millis(300)).connect().unwrap();
    let start = Instant::now();
    let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Deadline);
    assert!(start.elapsed() < Duration::from_secs(5));
    let timeout = server.state.seen.lock().unwrap()[0].timeout.clone();
    assert!(!timeout.is_empty(), "grpc-timeout is set");
    let error = client.mask_one(&token(1).parse().unwrap()).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Deadline);
}

/// Two endpoints of one vault, a client of both, and the token of a value that it has kept.
async fn two_endpoints(state: &Arc<State>) -> (Pki, [Running; 2], Client, Token) {
    let pki = Pki::new();
    let (first, second) =
        (fake::start(&pki, Arc::clone(state)).await, fake::start(&pki, Arc::clone(state)).await);
    let client = builder(&pki).endpoint(first.uri()).endpoint(second.uri()).connect().unwrap();
    let token = client.tokenize_one(new("Ada")).await.unwrap();
    (pki, [first, second], client, token)
}

#[tokio::test]
async fn when_one_endpoint_dies_the_other_serves() {
    let (_pki, [first, _second], client, token) = two_endpoints(&Arc::default()).await;
    for _ in 0..4 {
        assert!(client.mask_one(&token).await.is_ok());
    }
    first.kill();
    for _ in 0..20 {
        assert!(client.mask_one(&token).await.is_ok());
    }
}

#[tokio::test]
async fn many_calls_at_once_leave_a_dead_endpoint() {
    let state = Arc::new(State::default());
    let (_pki, [first, _second], client, token) = two_endpoints(&state).await;
    *state.delay.lock().unwrap() = Duration::from_millis(200);
    let calls = (0..100).map(|_| client.mask(std::slice::from_ref(&token)));
    let dying = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.kill();
    };
    let (answers, ()) = tokio::join!(join_all(calls), dying);
    assert!(answers.iter().all(Result::is_ok));
    assert!(client.repeats() >= 40, "{}", client.repeats());
}

#[tokio::test]
async fn an_endpoint_that_is_back_is_found_when_all_others_are_gone() {
    let pki = Pki::new();
    let state = Arc::new(State::default());
    let first = fake::start(&pki, Arc::clone(&state)).await;
    let second = fake::start(&pki, Arc::clone(&state)).await;
    // Nobody listens there: it fails often, and rests for long.
    let later = tokio::net::TcpSocket::new_v4().unwrap();
    later.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = later.local_addr().unwrap().port();
    let client = builder(&pki)
        .endpoint(first.uri())
        .endpoint(second.uri())
        .endpoint(format!("https://127.0.0.1:{port}"))
        .connect()
        .unwrap();
    let asked = [token(1).parse().unwrap()];
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        client.mask(&asked).await.unwrap();
    }
    let _back = fake::start_on(&pki, Arc::clone(&state), later.listen(64).unwrap());
    first.kill();
    second.kill();
    for _ in 0..50 {
        client.mask(&asked).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_endpoint_is_left_before_the_deadline() {
    let pki = Pki::new();
    let (silent, lively) = (Arc::new(State::default()), Arc::new(State::default()));
    let first = fake::start(&pki, Arc::clone(&silent)).await;
    let second = fake::start(&pki, Arc::clone(&lively)).await;
    *silent.delay.lock().unwrap() = Duration::from_secs(30);
    let client = builder(&pki)
        .endpoint(first.uri())
        .endpoint(second.uri())
        .timeout(Duration::from_secs(2))
        .connect()
        .unwrap();
    for _ in 0..10 {
        assert!(client.mask(&[token(1).parse().unwrap()]).await.is_ok());
    }
    assert!(silent.calls() >= 1);
}

#[tokio::test]
async fn a_vault_that_is_not_there_is_a_connection_error() {
    let pki = Pki::new();
    let client = builder(&pki).endpoint("https://127.0.0.1:1").connect().unwrap();
    let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
    assert_eq!((error.reason(), error.code()), (Reason::Connection, Code::Unavailable));
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_trusted_and_a_foreign_client_is_refused() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let server = fake::start(&ours, Arc::default()).await;
    let client = builder(&theirs).endpoint(server.uri()).connect().unwrap();
    let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
    assert_eq!(error.reason(), Reason::ServerNotTrusted);
    assert!(!error.is_retryable());

    let client = Client::builder()
        .ca_file(ours.path("ca.pem"))
        .identity_files(theirs.path("client.pem"), theirs.path("client.key"))
        .endpoint(server.uri())
        .connect()
        .unwrap();
    let error = client.mask(&[token(1).parse().unwrap()]).await.err().unwrap();
    assert_eq!(
        (error.reason(), error.code()),
        (Reason::CertificateRefused, Code::Unauthenticated),
        "{error}"
    );
    assert_eq!(server.state.calls(), 0);
}

#[tokio::test]
async fn a_rotated_certificate_is_used_by_the_next_connection() {
    let (pki, server, client) = one().await;
    let old = fake::der(&pki.path("client.pem"));
    assert!(client.mask(&[token(1).parse().unwrap()]).await.is_ok());
    pki.issue("client", "client");
    let new = fake::der(&pki.path("client.pem"));
    client.reconnect();
    assert!(client.mask(&[token(1).parse().unwrap()]).await.is_ok());
    assert_eq!(*server.state.clients.lock().unwrap(), [old, new.clone()]);
    // A half-written one leaves the last good one in force.
    std::fs::write(pki.path("client.pem"), "-----BEGIN CERT").unwrap();
    client.reconnect();
    assert!(client.mask(&[token(1).parse().unwrap()]).await.is_ok());
    assert_eq!(server.state.clients.lock().unwrap()[2], new);
}

#[tokio::test]
async fn large_batches_are_cut_and_answered_in_order() {
    let (pki, server, _) = one().await;
    let client = builder(&pki).endpoint(server.uri()).batch_limits(100, 1 << 20).connect().unwrap();
    let values = (0..1_050).map(|n| new(if n == 777 { String::new() } else { format!("n{n}") })).collect();
    let tokens = client.tokenize(values).await.unwrap();
    assert_eq!(server.state.calls(), 11);
    assert_eq!(tokens[777].as_ref().unwrap_err().reason(), Reason::ValueEmpty);
    let tokens: Vec<Token> = tokens.into_iter().filter_map(Result::ok).collect();
    let values = client.detokenize(&tokens, Purpose::Treatment, &why()).await.unwrap();
    let expected = (0..1_050).filter(|n| *n != 777).map(|n| format!("n{n}"));
    for (value, expected) in values.into_iter().zip(expected) {
        assert_eq!(value.unwrap().expose(), expected);
    }
}

#[tokio::test]
async fn a_part_that_fails_does_not_hide_the_others() {
    let (pki, server, _) = one().await;
    let client = builder(&pki).endpoint(server.uri()).batch_limits(2, 1 << 20).connect().unwrap();
    server.state.fail_next(|| Status::internal("a fault"));
    let tokens = client.tokenize(vec![new("a"), new("b"), new("c"), new("d")]).await.unwrap();
    let failed = tokens.iter().filter(|t| t.as_ref().is_err_and(|e| e.reason() == Reason::Internal)).count();
    assert_eq!((failed, tokens.len()), (2, 4));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_asked_for_in_halves() {
    let (_pki, server, client) = one().await;
    let tokens = client.tokenize((0..10).map(|n| new(format!("n{n}"))).collect()).await.unwrap();
    let tokens: Vec<_> = tokens.into_iter().map(Result::unwrap).collect();
    server.state.most_values.store(3, Ordering::Relaxed);
    let values = client.detokenize(&tokens, Purpose::Treatment, &why()).await.unwrap();
    for (n, value) in values.into_iter().enumerate() {
        assert_eq!(value.unwrap().expose(), format!("n{n}"));
    }
}

#[tokio::test]
async fn tokens_of_another_environment_are_refused_in_their_place_without_a_call() {
    let (_pki, server, client) = one().await;
    let good = client.tokenize_one(new("Ada")).await.unwrap();
    let foreign: Token = good.as_str().replace("phi_dev_", "phi_qa_").parse().unwrap_or_else(|_| {
        let qa = vault_client::Environment::parse("qa").unwrap();
        vault_format::token::Token::from_bytes([1; 16]).encode(&qa).parse().unwrap()
    });
    let masks = client.mask(&[foreign.clone(), good, foreign.clone()]).await.unwrap();
    let kinds: Vec<_> = masks.iter().map(|m| m.as_ref().err().map(vault_client::ItemError::reason)).collect();
    assert_eq!(kinds, [Some(Reason::TokenEnvironment), None, Some(Reason::TokenEnvironment)]);
    assert_eq!(server.state.seen.lock().unwrap().last().unwrap().items, 1);
    let before = server.state.calls();
    assert!(client.mask_one(&foreign).await.is_err());
    assert_eq!(server.state.calls(), before);
}

#[tokio::test]
async fn messages_on_the_wire_fill_buckets() {
    let (_pki, server, client) = one().await;
    let subject = |n: usize| SubjectId::new("s".repeat(n)).unwrap();
    let values = (1..=200).map(|n| new("v".repeat(n)).about(subject(n))).collect();
    client.tokenize(values).await.unwrap();
    let sizes = server.state.sizes.lock().unwrap().clone();
    assert_eq!(sizes.len(), 200);
    assert!(sizes.iter().all(|size| size % 64 == 0), "{sizes:?}");
}

#[tokio::test]
async fn streams_answer_in_order_and_end_when_the_source_does() {
    let (_pki, _server, client) = one().await;
    let batches = stream::iter((0..50).map(|b| (0..20).map(|n| new(format!("{b}/{n}"))).collect::<Vec<_>>()));
    let answers = client.tokenize_stream(batches).await.unwrap().collect::<Vec<_>>().await;
    assert_eq!(answers.len(), 50);
    let tokens: Vec<Vec<Token>> = answers
        .into_iter()
        .map(|batch| batch.unwrap().unwrap().into_iter().map(Result::unwrap).collect())
        .collect();
    let mut batches = tokens.clone();
    batches.insert(7, Vec::new());
    let values = client.detokenize_stream(stream::iter(batches), Purpose::Operations, &why()).await.unwrap();
    let mut values = values.collect::<Vec<_>>().await;
    assert_eq!(values.remove(7).unwrap().err().unwrap().reason(), Reason::NoItems);
    for (b, batch) in values.into_iter().enumerate() {
        for (n, value) in batch.unwrap().unwrap().into_iter().enumerate() {
            assert_eq!(value.unwrap().expose(), format!("{b}/{n}"));
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_is_not_repeated_and_can_be_taken_up_under_the_same_key() {
    let (_pki, server, client) = one().await;
    let batch = || TokenizeBatch::with_key(vec![new("a"), new("b")], "import-1/7");
    let first = client.tokenize_stream(stream::iter([batch()])).await.unwrap().collect::<Vec<_>>().await;
    let first: Vec<_> = first.into_iter().map(|b| b.unwrap().unwrap()).collect();
    server.state.fail_next(unavailable);
    let broken = client.tokenize_stream(stream::iter([batch()])).await.unwrap().collect::<Vec<_>>().await;
    assert_eq!(broken.len(), 1);
    assert!(broken[0].as_ref().is_err_and(vault_client::Error::is_retryable));
    let options = TokenizeOptions::with_key("import-1/7");
    let again = client.tokenize_with(vec![new("a"), new("b")], &options).await.unwrap();
    assert_eq!(first[0], again);
    assert_eq!(server.state.values.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_source_that_never_ends_is_not_read_ahead_without_bound() {
    let (pki, server, _) = one().await;
    let client = builder(&pki).endpoint(server.uri()).connect().unwrap();
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let source = stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        vec![new("x".repeat(60_000))]
    });
    let mut answers = Box::pin(client.tokenize_stream(source).await.unwrap());
    assert!(answers.next().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(made.load(Ordering::Relaxed) <= 34, "answers that nobody reads stop the source");
}

#[test]
fn a_configuration_that_can_not_work_is_refused_by_name() {
    let pki = Pki::new();
    let refused = |builder: ClientBuilder| builder.connect().err().unwrap().message().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    assert!(refused(builder(&pki)).contains("endpoint"));
    assert!(refused(builder(&pki).endpoint("http://127.0.0.1:1")).contains("https"));
    assert!(
        refused(builder(&pki).endpoint("https://127.0.0.1:1").environment("PROD")).contains("environment")
    );
    assert!(
        refused(builder(&pki).ca_file("/nowhere/ca.pem").endpoint("https://h")).contains("/nowhere/ca.pem")
    );
    let mixed =
        builder(&pki).endpoint("https://h").identity_files(pki.path("client.pem"), pki.path("server.key"));
    assert!(refused(mixed).contains("client.pem"));
}
