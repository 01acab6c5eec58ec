//! Principals: tables for people, an object a line for programs.

use std::io;
use std::time::SystemTime;

use serde_json::{Value, json};
use vault_client::principals::{Oneself, Principal};

use crate::describe::time;
use crate::output;

/// Prints principals.
pub(super) fn principals(as_json: bool, principals: &[Principal]) -> io::Result<()> {
    if as_json {
        return principals.iter().try_for_each(|principal| output::line(&object(principal).to_string()));
    }
    let header = ["ID", "KIND", "STATE", "ROLES", "IDENTITIES", "OWNER", "EXPIRES", "FROM"];
    let row = |principal: &Principal| {
        vec![
            principal.id.clone(),
            principal.kind.as_str().to_owned(),
            if principal.enabled { "enabled" } else { "disabled" }.to_owned(),
            roles(principal),
            principal.identities.join(" "),
            principal.owner.clone().unwrap_or_else(|| "-".to_owned()),
            or_never(principal.expires),
            if principal.configured { "file" } else { "vault" }.to_owned(),
        ]
    };
    output::table(&header, principals.iter().map(row))
}

/// Prints who calls.
pub(super) fn oneself(as_json: bool, oneself: &Oneself) -> io::Result<()> {
    let Oneself { principal, factors, until } = oneself;
    if as_json {
        let mut object = object(principal);
        object["factors"] = json!(factors);
        object["until"] = json!(until.map(time));
        return output::line(&object.to_string());
    }
    for (name, value) in [
        ("principal", format!("{} ({})", principal.id, principal.kind.as_str())),
        ("roles", roles(principal)),
        ("authenticated by", factors.join(" ")),
        ("until", or_never(*until)),
    ] {
        output::line(&format!("{name:<17} {value}"))?;
    }
    Ok(())
}

fn object(principal: &Principal) -> Value {
    json!({
        "id": principal.id,
        "kind": principal.kind.as_str(),
        "enabled": principal.enabled,
        "roles": principal.roles,
        "identities": principal.identities,
        "owner": principal.owner,
        "expires": principal.expires.map(time),
        "configured": principal.configured,
        "revision": principal.revision,
    })
}

fn roles(principal: &Principal) -> String {
    let at = |(tenant, roles): (&String, &Vec<String>)| format!("{tenant}:{}", roles.join("+"));
    principal.roles.iter().map(at).collect::<Vec<_>>().join(" ")
}

fn or_never(moment: Option<SystemTime>) -> String {
    moment.map_or_else(|| "never".to_owned(), time)
}
