//! What can't be undone is asked for twice.

use std::io::stdin;

use vault_client::Client;
use vault_client::keys::KeyId;

use crate::failure::Failure;
use crate::meant::is_somebody_there;

/// Asks for the first digits of a key's id.
pub(super) fn key(yes: bool, key: KeyId, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    terminal()?;
    let id = key.to_string();
    ask(what, "the first 8 digits of its id", id.get(..8).unwrap_or(&id))
}

/// Asks for the name of the tenant. The identity may serve it without naming it: the vault knows.
pub(super) async fn tenant(yes: bool, client: &Client) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    terminal()?;
    let keys = client.list_keys(false).await?;
    let name = &keys.first().ok_or_else(|| Failure::wrong_use("the tenant has no keys"))?.tenant;
    let what = format!("this asks for all keys of {name} to be destroyed, and with them every value");
    ask(&what, "the tenant's name", name)
}

fn terminal() -> Result<(), Failure> {
    if is_somebody_there() {
        return Ok(());
    }
    Err(Failure::wrong_use("this is not done without being asked for twice")
        .hint("there is no terminal to ask on: give --yes"))
}

fn ask(what: &str, answer: &str, expected: &str) -> Result<(), Failure> {
    eprint!("vaultctl: {what}.\nType {answer} to go on: ");
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    if agrees(&line, expected) { Ok(()) } else { Err(Failure::wrong_use("nothing was done")) }
}

fn agrees(line: &str, expected: &str) -> bool {
    !expected.is_empty() && line.trim() == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_name_agrees() {
        assert!(agrees("demo\n", "demo") && agrees(" demo\r\n", "demo"));
        for line in ["", "\n", "y\n", "yes\n", "dem\n", "demo2\n", "Demo\n"] {
            assert!(!agrees(line, "demo"), "{line:?}");
        }
        assert!(!agrees("\n", ""), "nothing is no name");
    }
}
