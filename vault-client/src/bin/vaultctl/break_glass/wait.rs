//! Waits for an approval, in sight of who waits.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant, SystemTime};

use vault_client::Client;
use vault_client::break_glass::{Grant, GrantState};

use crate::failure::Failure;
use crate::paste::tell;

use super::say;

/// How long between two looks: each is in the log, so people who wait for long look less often.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_mins(3);
/// How often to tell, where no line can be written over.
const TELL: Duration = Duration::from_mins(1);

/// The grant, once it does not wait any more; or as it was last seen, if Ctrl-C breaks the waiting off. It stays then.
pub(super) async fn until_answered(client: &Client, mut grant: Grant) -> Result<Grant, Failure> {
    let is_terminal = stderr().is_terminal();
    tell("you wait for that now; Ctrl-C stops the waiting, not the grant");
    let waited = tokio::select! {
        waited = watch(client, &mut grant, is_terminal) => waited,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if is_terminal {
        eprintln!();
    }
    waited.map(|()| grant)
}

async fn watch(client: &Client, grant: &mut Grant, is_terminal: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut told: Option<(Instant, usize)> = None;
    while grant.state == GrantState::Requested {
        let line = line(grant, SystemTime::now());
        if is_terminal {
            eprint!("\r\u{1b}[Kvaultctl: {line}");
        } else if told.is_none_or(|(at, count)| at.elapsed() >= TELL || count != grant.approvers.len()) {
            tell(&line);
            told = Some((Instant::now(), grant.approvers.len()));
        }
        tokio::time::sleep(if begun.elapsed() < LONG { SOON } else { LATER }).await;
        match client.get_grant(&grant.id).await {
            Ok(seen) => *grant = seen.grant,
            // A vault that is away for a while comes back; the grant is there then.
            Err(error)
                if error.is_retryable() && grant.time_left(SystemTime::now()) != Some(Duration::ZERO) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Short enough for a terminal of 80 columns: a line that was wrapped could not be written over.
fn line(grant: &Grant, now: SystemTime) -> String {
    format!(
        "waiting: {} of {} approvals, {}",
        grant.approvers.len(),
        grant.approvals_needed,
        say::left(grant, now)
    )
}
