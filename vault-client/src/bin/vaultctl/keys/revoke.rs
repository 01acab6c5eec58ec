//! `vaultctl keys revoke`

use clap::Args;
use vault_client::Client;
use vault_client::keys::{Key, KeyId, KeyPurpose, KeyState};

use super::{Yes, confirm, show};
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::paste::{Paste, tell};
use crate::words::NoteArgs;

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The version's id, as `keys list` shows it.
    key: KeyId,

    #[command(flatten)]
    yes: Yes,

    #[command(flatten)]
    note: NoteArgs,
}

/// Marks a version as compromised, and says what seals in its place: if its KMS is away that is nothing.
pub(super) async fn revoke(global: &Global, client: &Client, args: RevokeArgs) -> Result<Exit, Failure> {
    let what = "from now on nobody gets what this version sealed, until it is sealed anew";
    confirm::key(args.yes.yes, args.key, what)?;
    let key = client.mark_compromised(args.key, &args.note.into()).await?;
    let keys = match client.list_keys(false).await {
        Ok(keys) => keys,
        Err(error) => {
            show::revoked(global.json, &key, None)?;
            let failure = Failure::from(error);
            let look = global.paste().mine(&key.tenant, "keys list");
            return Err(failure.hint(format!(
                "it is marked as compromised. whether another version took its place is not known: {look}"
            )));
        }
    };
    let is_active = |one: &&Key| one.purpose == key.purpose && one.state == KeyState::Active;
    let active = keys.iter().find(is_active);
    show::revoked(global.json, &key, active)?;
    if active.is_none() {
        tell(&none_active(&key, &global.paste()));
    }
    if !global.json {
        tell(&next(&key, &global.paste()));
    }
    Ok(if active.is_some() { Exit::Done } else { Exit::SomeFailed })
}

/// What it means that no version took the place of one.
fn none_active(key: &Key, paste: &Paste) -> String {
    let refused = match key.purpose {
        KeyPurpose::LogSigning => "no checkpoint of the vault's logs is signed".to_owned(),
        _ => format!("WRITES OF TENANT {} ARE REFUSED", key.tenant),
    };
    format!(
        "NO VERSION TOOK ITS PLACE: {refused} until this has made one (it needs every KMS key)\n    {}",
        paste.mine(&key.tenant, &format!("keys rotate --purpose {}", key.purpose))
    )
}

/// What ends the compromise for what the version sealed.
fn next(key: &Key, paste: &Paste) -> String {
    let mine = |command: &str| paste.mine(&key.tenant, command);
    match key.purpose {
        KeyPurpose::Data => format!(
            "next: have what it sealed sealed anew; nobody gets it before\n    {}",
            mine(&format!("keys reencrypt --key {} --watch", key.id))
        ),
        KeyPurpose::Index => format!("next: make its indexes anew\n    {}", mine("keys reindex --watch")),
        _ => "next: give every auditor the new key, by another way than the log".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_revokes_is_told_what_comes_next_by_the_keys_purpose() {
        let paste = Paste::default();
        let data = Key::active(KeyPurpose::Data, 1);
        let said = next(&data, &paste);
        let command = format!("\n    vaultctl --tenant demo keys reencrypt --key {} --watch", data.id);
        assert!(said.contains(&command), "{said}");
        let index = Key::active(KeyPurpose::Index, 1);
        assert!(next(&index, &paste).contains("\n    vaultctl --tenant demo keys reindex --watch"));
        assert!(next(&Key::active(KeyPurpose::LogSigning, 1), &paste).contains("auditor"));
        let none = none_active(&index, &paste);
        assert!(
            none.contains("TENANT demo ARE REFUSED") && none.contains("rotate --purpose index"),
            "{none}"
        );
    }
}
