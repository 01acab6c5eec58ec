//! What can be said on the command line.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use vault_client::profile::{Profile, ProfileIdentity};
use vault_client::{Client, ClientBuilder, Purpose};

use crate::failure::Failure;
use crate::paste::Paste;
use crate::{
    audit, break_glass, bulk, completions, describe, detokenize, erase, find, honeytokens, keys, login, mask,
    policy, principals, security_keys, tokenize,
};

/// Keeps health data in a phi-vault and gets it back: values in by standard input, tokens out.
///
/// Values are read from standard input, never from the command line, which other users of the machine can see.
///
/// Exit codes: 0 done, 1 some items failed or are not there, 2 wrong use, 3 refused, 4 the vault is not available, 5 a job
/// failed or is paused, 6 a job, a grant or a change of principals asks for approval.
#[derive(Parser)]
#[command(name = "vaultctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const PROFILE_ENV: &str = "PHI_VAULT_PROFILE";
const IDENTITY_ENV: &str = "PHI_VAULT_AS";
/// So that a command's own options stand together.
const HEADING: &str = "Options of all commands";

/// Options of all commands.
#[derive(Args)]
pub(crate) struct Global {
    /// The profile: where the vault is, and which certificates to use. `vault-server dev` writes one.
    #[arg(
        long,
        short = 'p',
        value_name = "FILE",
        global = true,
        env = PROFILE_ENV,
        hide_env_values = true,
        help_heading = HEADING
    )]
    profile: Option<PathBuf>,

    /// Which identity of the profile to use; the profile's own choice unless given.
    #[arg(long = "as", value_name = "NAME", global = true, env = IDENTITY_ENV, hide_env_values = true, help_heading = HEADING)]
    identity: Option<String>,

    /// Whose data is meant, for identities that serve several tenants; `*`: the vault as a whole, for who may.
    #[arg(long, value_name = "TENANT", global = true, help_heading = HEADING)]
    tenant: Option<String>,

    /// Print JSON.
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,

    /// How long a call may take: `500ms`, `10s`, `2m`.
    #[arg(long, value_name = "TIME", global = true, default_value = "10s", value_parser = duration, help_heading = HEADING)]
    timeout: Duration,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Keep a value; prints its token.
    Tokenize(tokenize::TokenizeArgs),
    /// Get values back; prints them, one a line.
    Detokenize(detokenize::DetokenizeArgs),
    /// Print the masked form of values: as much as may be shown.
    Mask(mask::MaskArgs),
    /// Find the tokens of a value.
    Find(find::FindArgs),
    /// Tell what is known of tokens, without any value.
    Describe(describe::DescribeArgs),
    /// Erase the values of tokens, or all of a person's.
    Erase(erase::EraseArgs),
    /// Replace the PHI columns of a file by tokens.
    Import(bulk::import::ImportArgs),
    /// Put the values back in place of a file's tokens.
    Export(bulk::export::ExportArgs),
    /// Read, export and verify the log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// See, rotate and retire a tenant's keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// See, approve and steer jobs on keys.
    #[command(subcommand)]
    Jobs(keys::JobsCommand),
    /// See, provision, change and disable principals.
    #[command(subcommand)]
    Principals(principals::PrincipalsCommand),
    /// Plant, list and remove values that nobody has any business with.
    #[command(subcommand)]
    Honeytokens(honeytokens::HoneytokensCommand),
    /// Show who the identity is, as the vault sees it.
    Whoami,
    /// See what policies allow, and try others.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Plain values in an emergency: ask, approve, see, close, review.
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlassCommand),
    /// Enroll, take back and try people's security keys.
    #[command(subcommand)]
    SecurityKeys(security_keys::SecurityKeysCommand),
    /// Log in by an identity provider.
    Login(login::LoginArgs),
    /// Log out.
    Logout(login::LogoutArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

/// Tokens as arguments. Tokens are safe on a command line; values are not.
#[derive(Args)]
pub(crate) struct Tokens {
    /// Tokens; `-` reads them from standard input, one a line.
    #[arg(value_name = "TOKEN", required = true)]
    pub(crate) tokens: Vec<String>,
}

/// A person, by the application's id.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Subject {
    /// The person, by your own id. Other users of this machine can see it while the command runs: prefer
    /// --subject-file.
    #[arg(long, value_name = "ID")]
    pub(crate) subject: Option<String>,

    /// Read the person's id from a file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) subject_file: Option<PathBuf>,
}

impl Global {
    /// Connects as the profile and the options say.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Ok(self.builder()?.connect()?)
    }

    fn profile(&self) -> Result<&PathBuf, Failure> {
        self.profile.as_ref().ok_or_else(|| {
            Failure::wrong_use("no profile is given")
                .hint("give --profile FILE or set PHI_VAULT_PROFILE; `vault-server dev` writes one")
        })
    }

    /// How commands that are to be pasted name the vault and who calls it.
    pub(crate) fn paste(&self) -> Paste {
        let is_typed = |given: &OsStr, name: &str| std::env::var_os(name).is_none_or(|known| known != given);
        let profile = self.profile.as_ref().filter(|file| is_typed(file.as_os_str(), PROFILE_ENV));
        let identity = self.identity.as_ref().filter(|name| is_typed(name.as_ref(), IDENTITY_ENV));
        Paste { profile: profile.cloned(), identity: identity.cloned() }
    }

    /// Which identity of the profile is used.
    pub(crate) fn identity(&self) -> Result<ProfileIdentity, Failure> {
        Ok(Profile::load(self.profile()?)?.identity(self.identity.as_deref())?.clone())
    }

    pub(crate) fn builder(&self) -> Result<ClientBuilder, Failure> {
        let builder =
            ClientBuilder::from_profile(self.profile()?, self.identity.as_deref())?.timeout(self.timeout);
        Ok(match &self.tenant {
            Some(tenant) => builder.tenant(tenant),
            None => builder,
        })
    }
}

/// Parses a purpose of use.
pub(crate) fn purpose(text: &str) -> Result<Purpose, String> {
    Purpose::parse(text).ok_or_else(|| {
        let codes: Vec<_> = Purpose::ALL.iter().map(|purpose| purpose.code()).collect();
        format!("not a purpose of use (HL7 v3 ActReason); it is one of {}", codes.join(", "))
    })
}

/// Parses a short span of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || "a number and `ms`, `s`, `m`, `h` or `d`, such as `10s`".to_owned();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(millis) {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spans_of_time_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "10", "s", "0s", "1w", "-1s", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_required_forms_parse() {
        for line in [
            "vaultctl --profile P --as console tokenize --class ssn --subject ID",
            "vaultctl --profile P detokenize T1 T2 --purpose TREAT",
            "vaultctl --profile P mask T1",
            "vaultctl --profile P describe T1 T2",
            "vaultctl --profile P erase T1",
            "vaultctl --profile P erase --subject ID",
            "vaultctl --profile P find --class ssn",
            "vaultctl --profile P audit query --token T --subject ID --principal P --action A --since 1h --json",
            "vaultctl --profile P audit export --dir DIR",
            "vaultctl audit verify --dir DIR --key FILE",
            "vaultctl --profile P import F.csv --map A=ssn --map B=name --subject ID --out O",
            "vaultctl --profile P import F.csv --map A=ssn B=name --subject ID --out O --format csv",
            "vaultctl --profile P export F.csv --purpose TREAT --out O",
            "vaultctl --profile P keys list --count --json",
            "vaultctl --profile P keys rotate --purpose index --version 3 --reason R --ticket T",
            "vaultctl --profile P keys rewrap --dry-run --kms-calls-per-second 5",
            "vaultctl --profile P keys reencrypt --key 0123456789abcdef0123456789abcdef --watch",
            "vaultctl --profile P keys reindex --bytes-per-second 1000000 --kms-calls-per-second 5",
            "vaultctl --profile P keys revoke 0123456789abcdef0123456789abcdef --yes",
            "vaultctl --profile P keys destroy 0123456789abcdef0123456789abcdef --reason R --ticket T",
            "vaultctl --profile P --tenant demo keys shred --yes --watch",
            "vaultctl --profile P principals list --tenant *",
            "vaultctl --profile P principals add ann --kind human --identity spiffe://a.b/ann --role oncall",
            "vaultctl --profile P principals change ann --role oncall --role st-mary=approver --owner O",
            "vaultctl --profile P principals disable ann --reason R --ticket T",
            "vaultctl --profile P whoami",
            "vaultctl break-glass request T1 T2 --class ssn --class name --reason-code outage --reason merged_charts",
            "vaultctl break-glass request --subject-file F --class ssn --reason-code legal --reason merged_charts --for 15m",
            "vaultctl break-glass request T --class ssn --reason-code legal --reason merged_charts --wait --reveal --out -",
            "vaultctl break-glass list --waiting --json",
            "vaultctl break-glass show 0123ab",
            "vaultctl break-glass approve 0123ab --yes --security-key F",
            "vaultctl break-glass deny 0123ab --notes N",
            "vaultctl break-glass reveal 0123ab T1 --out -",
            "vaultctl break-glass close 0123ab",
            "vaultctl break-glass review 0123ab --verdict not-justified --notes was_no_emergency",
            "vaultctl break-glass story 0123ab --json",
            "vaultctl audit query --grant 0123456789abcdef0123456789abcdef",
            "vaultctl audit query --grant 0123ab",
            "vaultctl policy check F",
            "vaultctl policy matrix",
            "vaultctl policy explain ann --action detokenize --purpose BTG --with-grant 1 --policies F",
            "vaultctl policy test F",
            "vaultctl --profile P jobs list --tenant *",
            "vaultctl --profile P jobs watch 0123456789abcdef0123456789abcdef --patience 1m",
            "vaultctl --profile P jobs approve 0123456789abcdef0123456789abcdef",
            "vaultctl --profile P jobs approve 0123ab --yes --reason R --ticket T",
            "vaultctl --profile P --as joan login",
            "vaultctl --profile P --as joan login --token-file -",
            "vaultctl --profile P --as joan logout",
            "vaultctl --profile P jobs cancel 0123456789abcdef0123456789abcdef",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_uses_do_not_parse() {
        for line in [
            "vaultctl detokenize T1",
            "vaultctl detokenize T1 --purpose CURIOSITY",
            "vaultctl erase T1 --subject ID",
            "vaultctl erase",
            "vaultctl tokenize --class SSN",
            "vaultctl tokenize --class ssn 999-12-3456",
            "vaultctl tokenize --class ssn --subject A --subject-file B",
            "vaultctl keys rotate --purpose log",
            "vaultctl keys rotate --version 0",
            "vaultctl keys destroy",
            "vaultctl keys destroy 0123456789abcdef",
            "vaultctl keys rewrap --dry-run --watch",
            "vaultctl keys rewrap --bytes-per-second 5",
            "vaultctl keys shred --kms-calls-per-second 5",
            "vaultctl keys destroy 0123456789abcdef0123456789abcdef --bytes-per-second 5",
            "vaultctl jobs watch 1",
            "vaultctl break-glass request T --reason-code outage --reason merged_charts",
            "vaultctl break-glass request --class ssn --reason-code outage --reason merged_charts",
            "vaultctl break-glass request T --class ssn --reason-code outage --reason short",
            "vaultctl break-glass request T --subject S --class ssn --reason-code outage --reason merged_charts",
            "vaultctl break-glass request T --class ssn --reason-code outage --reason merged_charts --reveal",
            "vaultctl break-glass reveal 0123ab --out F",
            "vaultctl break-glass approve 0123a",
            "vaultctl break-glass review 0123ab --verdict fine --notes was_no_emergency",
            "vaultctl principals add ann --kind robot --identity spiffe://a.b/ann --role oncall",
            "vaultctl principals add ann --kind human --role oncall",
            "vaultctl principals change ann --role oncall --no-roles",
            "vaultctl principals add a --kind human --identity x --role oncall --expires tomorrow",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
