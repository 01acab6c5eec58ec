//! A command line that is not understood. What should not be there may be a value that was meant for standard input,
//! so no text of the caller's is repeated.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// Tells what is wrong, or prints the help that was asked for.
pub(crate) fn end(error: &Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    let failure = match without_values(error) {
        Some(failure) => failure,
        None if json && error.use_stderr() => Failure::wrong_use(plain(error)),
        None => error.exit(),
    };
    failure.print(json);
    failure.exit().into()
}

/// Clap's own words, of which nothing was typed, in a line.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.trim_start_matches("error: ").to_owned()
}

/// What is wrong, if clap's own words would repeat an argument.
fn without_values(error: &Error) -> Option<Failure> {
    let stdin = "values come by standard input, not as arguments";
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            // A name of ours.
            let near = text(ContextKind::SuggestedArg);
            let hint = near.map_or("--help tells what there is".to_owned(), |near| {
                format!("is {near} what you mean? --help tells what there is")
            });
            Some(Failure::wrong_use(format!("an argument is not understood; {stdin}")).hint(hint))
        }
        _ => {
            let value = text(ContextKind::InvalidValue)?;
            // The option as the help has it.
            let option = text(ContextKind::InvalidArg).unwrap_or("an option");
            let why = std::error::Error::source(error).map(ToString::to_string);
            let why = why.filter(|why| value.is_empty() || !why.contains(value)).unwrap_or_default();
            let why = if why.is_empty() { why } else { format!(": {why}") };
            let stdin = if is_near_a_value(option) { format!("; {stdin}") } else { String::new() };
            let failure = Failure::wrong_use(format!("what {option} was given is not valid{why}{stdin}"));
            Some(match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                    failure.hint(format!("it is one of {}", valid.join(", ")))
                }
                _ => failure,
            })
        }
    }
}

/// Options beside which people type a value. Of others their own rule says enough.
fn is_near_a_value(option: &str) -> bool {
    let name = option.split([' ', '=']).next().unwrap_or(option);
    ["--class", "--lines"].contains(&name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn failure(line: &str) -> String {
        let error = Cli::try_parse_from(line.split(' ')).err().unwrap();
        format!("{:?}", without_values(&error).unwrap())
    }

    #[test]
    fn a_value_on_the_command_line_is_not_repeated() {
        for line in [
            "vaultctl tokenize --class ssn 999-68-7171",
            "vaultctl tokenize --class ssn --999-68-7171",
            "vaultctl tokenize --class ssn -999-68-7171",
            "vaultctl tokenize --class ssn --lines=999-68-7171",
            "vaultctl tokenize --class 999-68-7171",
            "vaultctl 999-68-7171",
            "vaultctl audit 999-68-7171",
        ] {
            let said = failure(line);
            assert!(!said.contains("7171") && said.contains("standard input"), "{line}: {said}");
        }
        for line in [
            "vaultctl detokenize T --purpose 999-68-7171",
            "vaultctl find --class ssn --limit 999-68-7171",
            "vaultctl import f --map A=ssn --out o --batch 999687171",
            "vaultctl import f --map A=ssn --out o --format 999-68-7171",
            "vaultctl audit query --since 999-68-7171",
            "vaultctl keys rotate --version 999-68-7171",
            "vaultctl keys revoke 999-68-7171",
            "vaultctl --timeout 999-68-7171 mask T",
        ] {
            let said = failure(line);
            assert!(!said.contains("7171") && !said.contains("standard input"), "{line}: {said}");
        }
    }

    #[test]
    fn what_is_misspelled_or_not_valid_is_told_by_the_options_own_name() {
        assert!(failure("vaultctl tokenize --clas ssn").contains("--class"));
        assert!(failure("vaultctl --timeout 10 mask T").contains("--timeout"));
        assert!(failure("vaultctl completions pdp11").contains("bash"));
    }

    #[test]
    fn a_rule_of_its_own_is_all_that_is_said() {
        let short = failure("vaultctl break-glass review 0123ab --verdict justified --notes short");
        assert!(short.contains("10 to 512 characters") && !short.contains("standard input"), "{short}");
        let id = failure("vaultctl principals approve 0123");
        assert!(id.contains("the first 6 are enough") && !id.contains("standard input"), "{id}");
    }

    #[test]
    fn what_is_missing_is_told_in_a_line_for_programs() {
        let error = Cli::try_parse_from(["vaultctl", "break-glass", "show"]).err().unwrap();
        assert_eq!(plain(&error), "the following required arguments were not provided: <GRANT>");
    }

    #[test]
    fn an_erasure_of_nothing_is_told_of_both_ways() {
        let error = Cli::try_parse_from(["vaultctl", "erase"]).err().unwrap();
        assert!(without_values(&error).is_none(), "nothing was given that could be repeated");
        let said = error.to_string();
        assert!(said.contains("TOKEN") && said.contains("--subject <ID>"), "{said}");
    }
}
