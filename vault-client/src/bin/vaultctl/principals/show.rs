//! Principals: tables for people, an object a line for programs.

use std::io;
use std::time::SystemTime;

use serde_json::{Value, json};
use vault_client::principals::{Oneself, Principal, PrincipalChange};

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

/// Prints changes that wait.
pub(super) fn changes(as_json: bool, changes: &[PrincipalChange]) -> io::Result<()> {
    if as_json {
        return changes.iter().try_for_each(|change| output::line(&change_object(change).to_string()));
    }
    for (index, change) in changes.iter().enumerate() {
        if index > 0 {
            output::line("")?;
        }
        let state = if change.superseded { " (can't be approved: it was changed since)" } else { "" };
        let mut lines = vec![
            ("change", format!("{}{state}", change.id)),
            ("principal", change.principal_id.clone()),
            ("asked for by", format!("{} as admin of {}", change.asked_by, change.tenant)),
            ("reason", format!("{} {}", change.reason, change.ticket).trim().to_owned()),
            ("until", or_never(change.expires)),
        ];
        lines.extend(change.differences.iter().map(|(name, value)| (name.as_str(), value.clone())));
        for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
            output::line(&format!("{name:<20} {value}"))?;
        }
    }
    Ok(())
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

fn change_object(change: &PrincipalChange) -> Value {
    let key = change.security_key.as_ref();
    json!({
        "id": change.id,
        "tenant": change.tenant,
        "principal": change.principal_id,
        "becomes": change.principal.as_ref().map(object),
        "security_key": key.map(|key| json!({ "fingerprint": key.fingerprint, "label": key.label })),
        "differences": change.differences,
        "asked_by": change.asked_by,
        "asked": change.asked.map(time),
        "expires": change.expires.map(time),
        "reason": change.reason,
        "ticket": change.ticket,
        "hash": hex::encode(&change.hash),
        "superseded": change.superseded,
    })
}

fn roles(principal: &Principal) -> String {
    let at = |(tenant, roles): (&String, &Vec<String>)| format!("{tenant}:{}", roles.join("+"));
    principal.roles.iter().map(at).collect::<Vec<_>>().join(" ")
}

fn or_never(moment: Option<SystemTime>) -> String {
    moment.map_or_else(|| "never".to_owned(), time)
}
