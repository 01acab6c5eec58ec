//! `vaultctl describe`

use std::time::SystemTime;

use clap::Args;
use serde_json::{Map, Value, json};
use vault_client::Description;

use crate::args::{Global, Tokens};
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Tell what is known of tokens, without any value.
#[derive(Args)]
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    tokens: Tokens,
}

pub(crate) async fn run(global: &Global, args: DescribeArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let given = input::tokens(args.tokens)?;
    let known = client.describe(&input::good(&given)).await?;
    let results = input::in_places(given, known);
    let header = ["TOKEN", "TENANT", "CLASS", "STATE", "CREATED", "ERASED", "KEY", "SUBJECT", "INDEXED"];
    let exit = output::batch(global.json, "token", &results, object, |known| {
        output::table(&header, known.iter().map(|(token, known)| row(token, known)))
    })?;
    Ok(exit)
}

fn object(known: &Description) -> Map<String, Value> {
    [
        ("tenant", json!(known.tenant)),
        ("class", json!(known.class)),
        ("state", json!(known.state.as_str())),
        ("created", json!(known.created.map(time))),
        ("erased", json!(known.erased.map(time))),
        ("key_version", json!(known.key_version)),
        ("has_subject", json!(known.has_subject)),
        ("indexed", json!(known.indexed)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn row(token: &str, known: &Description) -> Vec<String> {
    let none = || "-".to_owned();
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        token.to_owned(),
        known.tenant.clone(),
        known.class.clone(),
        known.state.as_str().to_owned(),
        known.created.map_or_else(none, time),
        known.erased.map_or_else(none, time),
        known.key_version.map_or_else(none, |version| version.to_string()),
        yes(known.has_subject),
        yes(known.indexed),
    ]
}

/// RFC 3339, UTC.
pub(crate) fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "out of range".to_owned(), |time| format!("{time:.3}"))
}
