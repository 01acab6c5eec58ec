//! What is read: values, tokens, subjects.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, stdin};
use std::path::Path;

use vault_client::{ItemError, Plaintext, SubjectId, Token};
use zeroize::Zeroizing;

use crate::args::{Subject, Tokens};
use crate::failure::Failure;

/// No value that a vault takes is larger.
const MOST_VALUE: u64 = 16 << 20;

/// The value on standard input: all of it, less one newline at its end.
pub(crate) fn value() -> Result<Plaintext, Failure> {
    invite("value (end with Ctrl-D): ");
    plaintext(read(stdin().lock(), "the value")?, "the value")
}

/// Values on standard input, one a line.
pub(crate) fn values() -> Result<Vec<Plaintext>, Failure> {
    let mut reader = BufReader::new(stdin().lock());
    let mut values = Vec::new();
    loop {
        let mut line = Zeroizing::new(Vec::new());
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(values);
        }
        let place = format!("line {}", values.len() + 1);
        values.push(plaintext(line, &place)?);
    }
}

/// The person that is meant, if one is. `stdin_is_taken`: by a value.
pub(crate) fn subject(from: Subject, stdin_is_taken: bool) -> Result<Option<SubjectId>, Failure> {
    let bytes = match (from.subject, from.subject_file) {
        (Some(id), _) => Zeroizing::new(id.into_bytes()),
        (None, Some(path)) if path == Path::new("-") => {
            if stdin_is_taken {
                return Err(Failure::wrong_use(
                    "standard input holds the value; it can't hold the subject too",
                ));
            }
            read(stdin().lock(), "the subject")?
        }
        (None, Some(path)) => {
            let named = |error| Failure::wrong_use(format!("{}: {error}", path.display()));
            read(std::fs::File::open(&path).map_err(named)?, "the subject")?
        }
        (None, None) => return Ok(None),
    };
    let text = plaintext(bytes, "the subject's id")?;
    // Exposed: moves into a type of its own.
    let id = SubjectId::new(text.expose().to_owned());
    id.map(Some).map_err(|error| Failure::wrong_use(error.to_string()))
}

/// A token as it was given, and what it is.
pub(crate) struct Given {
    pub(crate) text: String,
    pub(crate) token: Result<Token, ItemError>,
}

/// Tokens from the arguments or, for `-`, from standard input. Mistyped ones keep their places.
pub(crate) fn tokens(from: Tokens) -> Result<Vec<Given>, Failure> {
    let mut given = Vec::new();
    for text in from.tokens {
        if text == "-" {
            for line in stdin().lock().lines() {
                given.push(parse(line?.trim()));
            }
        } else {
            given.push(parse(&text));
        }
    }
    Ok(given)
}

fn parse(text: &str) -> Given {
    // What is not a token may be a value that was given by mistake: it is not repeated.
    let token: Result<Token, _> = text.parse();
    let shown = if text.starts_with("phi_") && text.len() <= 64 { text } else { "(not a token)" };
    Given { text: shown.escape_debug().to_string(), token }
}

/// Asks for the good tokens and puts the answers to all in order.
pub(crate) fn in_places<T>(
    given: Vec<Given>,
    answers: Vec<Result<T, ItemError>>,
) -> Vec<(String, Result<T, ItemError>)> {
    let mut answers = answers.into_iter();
    let place = |given: Given| {
        // The client promises an answer for each token.
        let answer = given.token.and_then(|_| answers.next().expect("one answer for each token"));
        (given.text, answer)
    };
    given.into_iter().map(place).collect()
}

/// The good tokens.
pub(crate) fn good(given: &[Given]) -> Vec<Token> {
    given.iter().filter_map(|given| given.token.as_ref().ok().cloned()).collect()
}

fn invite(text: &str) {
    if stdin().is_terminal() {
        eprint!("{text}");
    }
}

fn read(from: impl std::io::Read, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(MOST_VALUE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_VALUE {
        return Err(Failure::wrong_use(format!("{what} is larger than {} MiB", MOST_VALUE >> 20)));
    }
    Ok(bytes)
}

fn plaintext(mut bytes: Zeroizing<Vec<u8>>, what: &str) -> Result<Plaintext, Failure> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Plaintext::from_utf8(std::mem::take(&mut *bytes))
        .map_err(|_| Failure::wrong_use(format!("{what} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8]) -> String {
        plaintext(Zeroizing::new(text.to_vec()), "it").unwrap().expose().to_owned()
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_value() {
        assert_eq!(cut(b"a\n"), "a");
        assert_eq!(cut(b"a\r\n"), "a");
        assert_eq!(cut(b"a\n\n"), "a\n");
        assert_eq!(cut(b" a\nb "), " a\nb ");
    }

    #[test]
    fn a_value_given_in_place_of_a_token_is_not_repeated() {
        let given = parse("999-12-3456");
        assert!(given.token.is_err());
        assert!(!given.text.contains("999"));
    }
}
