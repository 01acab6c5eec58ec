//! Honeytokens, for admins: invented values that nobody has any business with. Whoever touches one raises an alert.
//!
//! ```no_run
//! use vault_client::keys::Note;
//! use vault_client::{DataClass, NewValue, Plaintext};
//!
//! # async fn example(vault: vault_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let invented = NewValue::new(DataClass::SSN, Plaintext::new("999-12-3456".to_owned()));
//! let planted = vault.plant_honeytoken(invented, "nightly export", &Note::default()).await?;
//! println!("{} is a trap", planted.token);
//! # Ok(()) }
//! ```

use std::time::{Duration, SystemTime};

use vault_proto::v1 as wire;
use vault_proto::v1::honeytoken_service_client::HoneytokenServiceClient;

use crate::client::Client;
use crate::error::Error;
use crate::keys::Note;
use crate::token::Token;
use crate::value::NewValue;

/// A honeytoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Honeytoken {
    /// Its token: like any other.
    pub token: Token,
    /// What the invented value is.
    pub class: String,
    /// Where it was planted, for people.
    pub label: String,
    /// When it was planted.
    pub planted: Option<SystemTime>,
    /// When it was touched for the first time, and by whom.
    pub touched: Option<(SystemTime, String)>,
}

impl Client {
    /// Plants an invented value. It is not repeated by itself: when it failed, look first.
    pub async fn plant_honeytoken(
        &self,
        value: NewValue,
        label: &str,
        note: &Note,
    ) -> Result<Honeytoken, Error> {
        let wire::TokenizeItem { data_class, value, subject } = crate::wire::item(value);
        let request = wire::PlantHoneytokenRequest {
            tenant: self.tenant(),
            data_class,
            value,
            label: label.to_owned(),
            subject,
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = self
            .call_of_once(HoneytokenServiceClient::new, request, async |mut service, request| {
                service.plant_honeytoken(request).await
            })
            .await?;
        honeytoken(answer.honeytoken.ok_or_else(|| Error::bad_answer("no honeytoken in it"))?)
    }

    /// Those of the tenant.
    pub async fn list_honeytokens(&self) -> Result<Vec<Honeytoken>, Error> {
        let request = wire::ListHoneytokensRequest { tenant: self.tenant() };
        let answer = self
            .call_of(HoneytokenServiceClient::new, request, async |mut service, request| {
                service.list_honeytokens(request).await
            })
            .await?;
        answer.honeytokens.into_iter().map(honeytoken).collect()
    }

    /// From now on it is a token like any other. It is not repeated by itself: a second time it is not found.
    pub async fn remove_honeytoken(&self, token: &Token, note: &Note) -> Result<(), Error> {
        let request = wire::RemoveHoneytokenRequest {
            tenant: self.tenant(),
            token: token.to_string(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        self.call_of_once(HoneytokenServiceClient::new, request, async |mut service, request| {
            service.remove_honeytoken(request).await
        })
        .await?;
        Ok(())
    }
}

fn honeytoken(wire: wire::Honeytoken) -> Result<Honeytoken, Error> {
    let touched = time(wire.first_touched_us).map(|at| (at, wire.first_touched_by));
    Ok(Honeytoken {
        token: wire.token.parse().map_err(|_| Error::bad_answer("no token in it"))?,
        class: wire.data_class,
        label: wire.label,
        planted: time(wire.planted_us),
        touched,
    })
}

/// 0: never.
fn time(micros: u64) -> Option<SystemTime> {
    (micros > 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))).flatten()
}
