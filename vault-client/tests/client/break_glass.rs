//! Break-glass against a fake that knows two grants.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_client::Reason;
use vault_client::break_glass::{GrantId, GrantScope, NewGrant};
use vault_client::{DataClass, SubjectId};
use vault_proto::v1::break_glass_service_server::BreakGlassService;
use vault_proto::v1::*;

use crate::cli::{code, err, out, setup};
use crate::fake::{Answer, State};
use crate::{one, unavailable};

const IDS: [&str; 2] = ["aaaaaa1100000000000000000000000f", "aaaaaa2200000000000000000000000f"];

pub(crate) struct FakeBreakGlass(pub(crate) Arc<State>);

fn grant(id: &str) -> Grant {
    Grant {
        id: id.to_owned(),
        tenant: "demo".to_owned(),
        state: GrantState::Active.into(),
        requester: "oncall".to_owned(),
        reason: "merged\u{202e} charts\u{1b}[2J".to_owned(),
        values_allowed: 2,
        ..Grant::default()
    }
}

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl BreakGlassService for FakeBreakGlass {
    async fn request_grant(&self, _: Request<RequestGrantRequest>) -> Answer<RequestGrantResponse> {
        no()
    }
    async fn approve_grant(&self, _: Request<ApproveGrantRequest>) -> Answer<ApproveGrantResponse> {
        no()
    }
    async fn deny_grant(&self, _: Request<DenyGrantRequest>) -> Answer<DenyGrantResponse> {
        no()
    }
    async fn reveal(&self, request: Request<RevealRequest>) -> Answer<RevealResponse> {
        self.0.note(&request, request.get_ref().tokens.len(), "", "reveal").await;
        self.0.fault()?;
        let value = Value { data: (&b"Ada\x1b[2J"[..]).into(), padding: vec![0; 7].into() };
        let result = RevealResult {
            token: crate::fake::token(1),
            data_class: "name".to_owned(),
            outcome: Some(reveal_result::Outcome::Value(value)),
        };
        let grant = Grant { values_seen: 1, ..grant(&request.get_ref().grant_id) };
        Ok(Response::new(RevealResponse { results: vec![result], grant: Some(grant) }))
    }
    async fn close_grant(&self, _: Request<CloseGrantRequest>) -> Answer<CloseGrantResponse> {
        no()
    }
    async fn review_grant(&self, _: Request<ReviewGrantRequest>) -> Answer<ReviewGrantResponse> {
        no()
    }
    async fn list_grants(&self, request: Request<ListGrantsRequest>) -> Answer<ListGrantsResponse> {
        self.0.note(&request, 0, "", "list").await;
        self.0.fault()?;
        Ok(Response::new(ListGrantsResponse { grants: IDS.map(grant).into() }))
    }
    async fn get_grant(&self, request: Request<GetGrantRequest>) -> Answer<GetGrantResponse> {
        self.0.note(&request, 0, "", "get").await;
        self.0.fault()?;
        let grant = grant(&request.get_ref().grant_id);
        Ok(Response::new(GetGrantResponse { grant: Some(grant), terms_hash: vec![7; 32].into() }))
    }
}

#[tokio::test]
async fn values_are_asked_for_once_and_grants_are_read_again() {
    let (_pki, server, client) = one().await;
    let id: GrantId = IDS[0].parse().unwrap();
    server.state.fail_next(unavailable);
    assert_eq!(client.get_grant(&id).await.unwrap().grant.id, id);
    assert_eq!(server.state.calls(), 2);
    server.state.fail_next(unavailable);
    assert!(client.reveal(&id, &[]).await.is_err_and(|error| error.is_retryable()));
    assert_eq!(server.state.calls(), 3, "each value that is seen counts");
    let (values, grant) = client.reveal(&id, &[]).await.unwrap();
    assert_eq!((values.len(), grant.values_left()), (1, 1));
    let two = [crate::fake::token(1), crate::fake::token(2)].map(|token| token.parse().unwrap());
    assert_eq!(client.reveal(&id, &two).await.err().unwrap().reason(), Reason::BadAnswer);
}

#[tokio::test]
async fn two_requests_for_the_same_are_two() {
    let (_pki, _server, client) = one().await;
    let new = || {
        let subject = SubjectId::new("p1".to_owned()).unwrap();
        client.new_grant(NewGrant::new(GrantScope::Subject(subject), vec![DataClass::SSN])).unwrap()
    };
    assert_ne!(new().hash(), new().hash(), "each has an idempotency key of its own");
}

#[tokio::test]
async fn a_value_goes_nowhere_by_accident() {
    let setup = setup().await;
    let piped = setup.run(&["break-glass", "reveal", "aaaaaa1"], "").await;
    assert_eq!((code(&piped), out(&piped), setup.server.state.calls()), (2, String::new(), 0));
    assert!(err(&piped).contains("--out -"), "{}", err(&piped));
    let json = setup.run(&["--json", "break-glass", "reveal", "aaaaaa1"], "").await;
    assert_eq!((code(&json), out(&json)), (2, String::new()));
    let meant = setup.run(&["break-glass", "reveal", "aaaaaa1", "--out", "-"], "").await;
    assert_eq!((code(&meant), out(&meant)), (0, "Ada\u{1b}[2J\n".to_owned()));
    assert!(!err(&meant).contains("Ada") && err(&meant).contains("1 of 2 values"), "{}", err(&meant));
}

#[tokio::test]
async fn digits_that_fit_two_grants_name_none() {
    let setup = setup().await;
    let several = setup.run(&["break-glass", "reveal", "aaaaaa", "--out", "-"], "").await;
    assert_eq!((code(&several), out(&several)), (2, String::new()));
    assert!(IDS.iter().all(|id| err(&several).contains(id)), "{}", err(&several));
    assert_eq!(code(&setup.run(&["break-glass", "show", "bbbbbb"], "").await), 1);
    let shown = setup.run(&["break-glass", "show", "aaaaaa2"], "").await;
    assert_eq!(code(&shown), 0);
    assert!(!out(&shown).contains(['\u{1b}', '\u{202e}']), "words of others steer no terminal");
}
