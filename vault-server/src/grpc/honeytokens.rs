//! `vault.v1.HoneytokenService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::honeytoken_service_server::HoneytokenService;

use crate::access::Honeytoken;
use crate::audit::AuditAction;
use crate::domain::{Environment, Token};
use crate::vault::{NewValue, Note, Problem, Refused, Vault};

use super::parse;
use super::serve::serve;

pub(super) struct HoneytokenApi {
    vault: Arc<Vault>,
}

impl HoneytokenApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl HoneytokenService for HoneytokenApi {
    async fn plant_honeytoken(
        &self,
        request: Request<v1::PlantHoneytokenRequest>,
    ) -> Result<Response<v1::PlantHoneytokenResponse>, Status> {
        serve(&self.vault, AuditAction::HoneytokenChange, request, async |vault, cx, request| {
            let v1::PlantHoneytokenRequest { tenant, data_class, value, label, subject, reason, ticket } =
                request;
            let new = parse_new(&data_class, value, subject);
            let note = Note::parse(reason, ticket);
            let planted = vault.plant_honeytoken(cx, &tenant, new, parse_label(label), note).await?;
            let honeytoken = Some(wire(&planted, &vault.identity().environment));
            Ok(v1::PlantHoneytokenResponse { honeytoken })
        })
        .await
    }

    async fn list_honeytokens(
        &self,
        request: Request<v1::ListHoneytokensRequest>,
    ) -> Result<Response<v1::ListHoneytokensResponse>, Status> {
        serve(&self.vault, AuditAction::HoneytokenRead, request, async |vault, cx, request| {
            let listed = vault.list_honeytokens(cx, &request.tenant).await?;
            let environment = &vault.identity().environment;
            let honeytokens = listed.iter().map(|honeytoken| wire(honeytoken, environment)).collect();
            Ok(v1::ListHoneytokensResponse { honeytokens })
        })
        .await
    }

    async fn remove_honeytoken(
        &self,
        request: Request<v1::RemoveHoneytokenRequest>,
    ) -> Result<Response<v1::RemoveHoneytokenResponse>, Status> {
        serve(&self.vault, AuditAction::HoneytokenChange, request, async |vault, cx, request| {
            let v1::RemoveHoneytokenRequest { tenant, token, reason, ticket } = request;
            let token = Token::parse(&token, &vault.identity().environment)
                .map_err(|error| Problem::Token(error).at("token"));
            vault.remove_honeytoken(cx, &tenant, token, Note::parse(reason, ticket)).await?;
            Ok(v1::RemoveHoneytokenResponse {})
        })
        .await
    }
}

fn parse_new(
    class: &str,
    value: Option<v1::Value>,
    subject: Option<v1::SubjectId>,
) -> Result<NewValue, Refused> {
    Ok(NewValue {
        class: parse::class(class, "data_class")?,
        value: parse::value(value).map_err(|problem| problem.at("value"))?,
        subject: parse::subject(subject, "subject")?,
    })
}

fn parse_label(label: String) -> Result<String, Refused> {
    if label.chars().count() > Vault::MAX_LABEL || label.chars().any(char::is_control) {
        let rule = "at most 128 characters, none of them a control character";
        return Err(Problem::Field(rule).at("label"));
    }
    Ok(label)
}

fn wire(honeytoken: &Honeytoken, environment: &Environment) -> v1::Honeytoken {
    let touched = honeytoken.touched.as_ref();
    v1::Honeytoken {
        token: honeytoken.token.encode(environment),
        data_class: honeytoken.class.to_string(),
        label: honeytoken.label.clone(),
        planted_us: honeytoken.planted.0,
        first_touched_us: touched.map_or(0, |(at, _)| at.0),
        first_touched_by: touched.map_or_else(String::new, |(_, by)| by.to_string()),
    }
}
