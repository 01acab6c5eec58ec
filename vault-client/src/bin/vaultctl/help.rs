//! What `--help` says below the options: what to know, and examples. A test reads every example.

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;

/// What is said of a command.
struct Page {
    /// Its words.
    of: &'static str,
    /// What to know; may be empty.
    notes: &'static str,
    /// Lines as they are typed.
    examples: &'static [&'static str],
}

const fn page(of: &'static str, notes: &'static str, examples: &'static [&'static str]) -> Page {
    Page { of, notes, examples }
}

/// The command line as it was typed.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches: ArgMatches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn command() -> Command {
    PAGES.iter().fold(Cli::command(), |command, page| {
        let words: Vec<_> = page.of.split_whitespace().collect();
        with(command, &words, text(page))
    })
}

fn with(command: Command, words: &[&'static str], text: String) -> Command {
    match words.split_first() {
        None => command.after_help(text),
        Some((word, rest)) => command.mut_subcommand(*word, |command| with(command, rest, text)),
    }
}

fn text(page: &Page) -> String {
    let examples: Vec<_> = page.examples.iter().map(|example| format!("  {example}")).collect();
    let head = if examples.len() == 1 { "Example:" } else { "Examples:" };
    let notes = if page.notes.is_empty() { String::new() } else { format!("{}\n\n", page.notes) };
    format!("{notes}{head}\n{}", examples.join("\n"))
}

const REQUEST: &str = "What you typed is checked, here and by the vault, before you are asked for a touch. Then it says what goes on record and \
    who is told.\n\n\
    Exit codes: 0 approved (with --wait), 1 no such token, 2 wrong use, 3 refused or denied, 4 the vault is not available, 6 it waits \
    for approval.";
const APPROVE: &str = "Shows the grant, asks whether you mean it, and has your security key touched. You approve what you are shown, and nothing \
    else: if it is another grant by then, it is refused.\n\n\
    Exit codes: 0 approved, 1 it is not there or does not wait, 2 wrong use, or you said no, 3 refused.";
const REVEAL: &str = "Each value that is printed counts, each time, and is in the log. To a terminal only, since what is redirected stays in files \
    and logs: --out - if that is what you mean.\n\n\
    Exit codes: 0 all, 1 the grant is over or some values are not to be had, 2 wrong use, 3 refused.";
const WAITS: &str = "What makes more of somebody waits until another admin has approved it: exit code 6, nothing has changed yet, and the command \
    for the other one is printed.";
const BY_KEY: &str = "Keys are named by all digits of their ids: what is done to them can't be undone.";

/// All commands, in the order of the help.
const PAGES: &[Page] = &[
    page(
        "tokenize",
        "The value comes by standard input, less one newline at its end.",
        &[
            "printf %s \"$SSN\" | vaultctl tokenize --class ssn --subject-file id.txt",
            "vaultctl tokenize --class name --lines < names.txt",
        ],
    ),
    page(
        "detokenize",
        "In the order of the tokens. Errors go to standard error.",
        &[
            "vaultctl detokenize \"$TOKEN\" --purpose TREAT",
            "vaultctl detokenize - --purpose HOPERAT --reason audit --ticket OPS-7 < tokens.txt",
        ],
    ),
    page("mask", "", &["vaultctl mask \"$TOKEN\""]),
    page(
        "find",
        "The value comes by standard input. None found: prints nothing, exit code 0.",
        &["printf %s \"$SSN\" | vaultctl find --class ssn"],
    ),
    page("describe", "", &["vaultctl describe \"$TOKEN\""]),
    page(
        "erase",
        "The tokens stay known. This can't be undone.",
        &["vaultctl erase \"$TOKEN\"", "vaultctl erase --subject-file id.txt"],
    ),
    page(
        "import",
        "Everything else stays as it is, byte for byte. Interrupted, it goes on when the same command is given again.",
        &[
            "vaultctl import patients.csv --map SSN=ssn --map LAST=name --subject ID --out patients.tokens.csv",
        ],
    ),
    page(
        "export",
        "Everything else stays as it is, byte for byte. Interrupted, it goes on when the same command is given again.",
        &["vaultctl export patients.tokens.csv --purpose HOPERAT --out patients.csv"],
    ),
    page(
        "audit query",
        "Reading the log is itself logged.",
        &[
            "vaultctl --as auditor audit query --since 1h --tenant '*'",
            "vaultctl --as auditor audit query --token \"$TOKEN\" --json",
        ],
    ),
    page("audit export", "", &["vaultctl --as auditor audit export --dir log"]),
    page(
        "audit verify",
        "Exit code 1: a log does not verify.",
        &["vaultctl audit verify --dir log --key log.vkey"],
    ),
    page("keys list", "", &["vaultctl --as admin keys list --count"]),
    page("keys rotate", "", &["vaultctl --as rotator keys rotate --version 1 --ticket SEC-7"]),
    page("keys rewrap", "", &["vaultctl --as rotator keys rewrap --watch"]),
    page(
        "keys reencrypt",
        BY_KEY,
        &[
            "vaultctl --as rotator keys reencrypt --dry-run",
            "vaultctl --as rotator keys reencrypt --watch --ticket SEC-7",
        ],
    ),
    page("keys reindex", "", &["vaultctl --as rotator keys reindex --watch"]),
    page(
        "keys revoke",
        "Keys are named by all digits of their ids: what is done to them can't be undone.\n\n\
         Exit codes: 0 marked, and another version is active; 1 marked, and none is: writes are refused until `keys rotate`.",
        &["vaultctl --as admin keys revoke 0123456789abcdef0123456789abcdef --reason leaked"],
    ),
    page(
        "keys destroy",
        BY_KEY,
        &[
            "vaultctl --as admin keys destroy 0123456789abcdef0123456789abcdef --dry-run",
            "vaultctl --as admin keys destroy 0123456789abcdef0123456789abcdef --ticket SEC-7",
        ],
    ),
    page(
        "keys shred",
        "Exit code 6: another admin has to approve it.",
        &[
            "vaultctl --as admin --tenant st-mary keys shred --dry-run",
            "vaultctl --as admin --tenant st-mary keys shred --ticket SEC-7",
        ],
    ),
    page("jobs list", "", &["vaultctl --as admin jobs list --tenant '*'"]),
    page(
        "jobs watch",
        "Exit codes: 0 done, 5 it did not end well, or is paused, 6 it asks for approval.",
        &["vaultctl --as admin --tenant st-mary jobs watch 3fa81c22d07b"],
    ),
    page(
        "jobs approve",
        "Another person than who asked. Shows what is destroyed, who asked and why, and asks whether you mean it.\n\n\
         Exit codes: 0 approved, 1 it is not there or does not wait, 2 wrong use, or you said no, 3 refused.",
        &["vaultctl --as chief --tenant st-mary jobs approve 3fa81c22d07b --ticket SEC-7"],
    ),
    page("jobs pause", "", &["vaultctl --as admin --tenant st-mary jobs pause 3fa81c22d07b"]),
    page(
        "jobs resume",
        "Exit code 6: another admin has to approve it again.",
        &["vaultctl --as admin --tenant st-mary jobs resume 3fa81c22d07b"],
    ),
    page("jobs cancel", "", &["vaultctl --as admin --tenant st-mary jobs cancel 3fa81c22d07b"]),
    page("principals list", "", &["vaultctl --as boss --tenant st-mary principals list"]),
    page("principals show", "", &["vaultctl --as boss --tenant st-mary principals show ann@example.org"]),
    page(
        "principals add",
        WAITS,
        &[
            "vaultctl --as boss --tenant st-mary principals add ann@example.org --kind human --identity spiffe://example.org/ann --role oncall",
        ],
    ),
    page(
        "principals change",
        WAITS,
        &[
            "vaultctl --as boss --tenant st-mary principals change ann@example.org --role oncall --role console",
            "vaultctl --as boss --tenant st-mary principals change ann@example.org --no-roles --reason left",
        ],
    ),
    page(
        "principals disable",
        "",
        &[
            "vaultctl --as boss --tenant st-mary principals disable ann@example.org --reason 'lost the laptop'",
        ],
    ),
    page(
        "principals enable",
        WAITS,
        &["vaultctl --as boss --tenant st-mary principals enable ann@example.org"],
    ),
    page("principals pending", "", &["vaultctl --as chief --tenant st-mary principals pending"]),
    page(
        "principals approve",
        "Another admin than who asked, and than whom it is about. What is approved is what is shown.",
        &["vaultctl --as chief --tenant st-mary principals approve 3f0c11 --ticket HR-12"],
    ),
    page(
        "principals reject",
        "",
        &["vaultctl --as chief --tenant st-mary principals reject 3f0c11 --reason 'not on the rota'"],
    ),
    page(
        "honeytokens plant",
        "Touching one raises an alert. The invented value comes by standard input.",
        &[
            "printf %s 999-12-3456 | vaultctl --as admin honeytokens plant --class ssn --label 'export of March'",
        ],
    ),
    page("honeytokens list", "", &["vaultctl --as auditor honeytokens list"]),
    page(
        "honeytokens remove",
        "",
        &["vaultctl --as admin honeytokens remove phi_dev_3gdyrp2msmggrncm91kwmq965pdj4h6b"],
    ),
    page("whoami", "", &["vaultctl --as ann whoami"]),
    page("policy check", "Exit code 1: it has faults.", &["vaultctl --as admin policy check new.cedar"]),
    page("policy matrix", "", &["vaultctl --as admin policy matrix new.cedar"]),
    page(
        "policy explain",
        "",
        &[
            "vaultctl --as admin --tenant demo policy explain ann --action detokenize --purpose BTG --with-grant 1",
        ],
    ),
    page(
        "policy test",
        "Exit code 1: a case does not hold.",
        &["vaultctl --as admin policy test cases.toml --policies new.cedar"],
    ),
    page(
        "break-glass",
        "Ask, and wait. Somebody else runs the `approve` command that is printed. That is all. Everything is in the vault's log, for \
         good, and people are told at once. What has to be said goes to standard error; standard output has what was asked for.",
        &[
            "vaultctl break-glass request \"$TOKEN\" --class ssn --reason-code patient_safety --reason 'two charts were merged' --wait --reveal",
        ],
    ),
    page(
        "break-glass request",
        REQUEST,
        &[
            "vaultctl break-glass request \"$TOKEN\" --class ssn --reason-code patient_safety --reason 'two charts were merged' --wait --reveal",
            "vaultctl break-glass request --subject-file id.txt --class ssn --class name --reason-code outage --reason 'billing is down' --for 15m --values 5",
        ],
    ),
    page("break-glass list", "", &["vaultctl break-glass list --waiting"]),
    page("break-glass show", "", &["vaultctl break-glass show 3fa81c22d07b"]),
    page(
        "break-glass approve",
        APPROVE,
        &["vaultctl --as bob --tenant st-mary break-glass approve 3fa81c22d07b"],
    ),
    page(
        "break-glass deny",
        "Exit codes as those of `approve`.",
        &["vaultctl --as bob --tenant st-mary break-glass deny 3fa81c22d07b --notes 'call me first'"],
    ),
    page("break-glass reveal", REVEAL, &["vaultctl break-glass reveal 3fa81c22d07b"]),
    page("break-glass close", "", &["vaultctl break-glass close 3fa81c22d07b --notes 'have what I need'"]),
    page(
        "break-glass review",
        "For who neither asked nor approved, once it is over; read its `story` before.",
        &[
            "vaultctl --as carol break-glass review 3fa81c22d07b --verdict justified --notes 'INC-2041: the charts were merged'",
        ],
    ),
    page(
        "break-glass story",
        "Who, when, what, about which tokens, and how it was decided: oldest first, each with its entry in the log. For \
         auditors and admins. Reading the log is itself logged.",
        &["vaultctl --as carol break-glass story 3fa81c22d07b"],
    ),
    page(
        "security-keys enroll",
        WAITS,
        &["vaultctl --as boss --tenant st-mary security-keys enroll ann@example.org ann.pub --ticket SEC-12"],
    ),
    page("security-keys list", "", &["vaultctl security-keys list"]),
    page("security-keys confirm", "", &["vaultctl security-keys confirm"]),
    page(
        "security-keys revoke",
        "",
        &[
            "vaultctl --as boss --tenant st-mary security-keys revoke ann@example.org SHA256:u3XY --reason lost",
        ],
    ),
    page(
        "security-keys try",
        "The text that is signed speaks of a grant that there is not: nothing is denied or granted by it.",
        &["vaultctl security-keys try"],
    ),
    page(
        "login",
        "Opens a session and keeps it in the identity's session_file. Shows a code to be typed in at the identity provider, in a browser \
         on whatever device (RFC 8628).",
        &["vaultctl --as joan login", "vaultctl --as joan login --token-file -"],
    ),
    page(
        "logout",
        "Closes the session, on all instances, and removes its file.",
        &["vaultctl --as joan logout"],
    ),
    page("completions", "", &["vaultctl completions bash > /etc/bash_completion.d/vaultctl"]),
];

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Words as a shell takes them, without what is before and behind the command.
    fn words(line: &str) -> Vec<String> {
        let line = line.rsplit_once("| ").map_or(line, |(_, command)| command);
        let line =
            line.split([' ']).take_while(|word| !["<", ">"].contains(word)).collect::<Vec<_>>().join(" ");
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    fn each(command: &Command, path: &str, look: &mut impl FnMut(&Command, &str)) {
        look(command, path);
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            each(sub, &format!("{path} {}", sub.get_name()), look);
        }
    }

    #[test]
    fn every_example_is_understood() {
        for page in PAGES {
            assert!(!page.examples.is_empty(), "{}", page.of);
            for example in page.examples {
                let words = words(example);
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{example}: {:?}", parsed.err().map(|error| error.to_string()));
                assert!(words.join(" ").contains(page.of), "{example} is of another command");
            }
        }
    }

    #[test]
    fn every_command_and_every_option_is_explained() {
        each(&command(), "vaultctl", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path}");
            let is_leaf = !command.has_subcommands();
            assert!(!is_leaf || command.get_after_help().is_some(), "{path} has no example");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
        });
    }

    #[test]
    fn nothing_of_the_help_is_lost_on_its_way() {
        let mut all = command();
        let glass = all.find_subcommand_mut("break-glass").unwrap();
        let request = glass.find_subcommand_mut("request").unwrap().render_long_help().to_string();
        assert!(
            request.contains("6 it waits for approval") && request.contains("--subject-file id.txt"),
            "{request}"
        );
    }
}
