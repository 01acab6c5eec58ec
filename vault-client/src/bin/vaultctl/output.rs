//! What is printed: lines and tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _, stdout};

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};
use vault_client::ItemError;

use crate::failure::{Exit, exit_of_items, hint};
use crate::paste::tell;

/// Prints one JSON document.
pub(crate) fn json(value: &Value) -> std::io::Result<()> {
    let text = if stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    line(&text)
}

/// Says that something was done that has nothing to show: an object for programs, else `text` to people.
pub(crate) fn done(as_json: bool, object: &Value, text: &str) -> std::io::Result<()> {
    if as_json {
        return line(&object.to_string());
    }
    tell(&format!("done: {text}"));
    Ok(())
}

/// Prints a line.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    bytes(&[text.as_bytes(), b"\n"])
}

/// Prints bytes. Whoever reads may have had enough, as `head` has: that is no error.
pub(crate) fn bytes(parts: &[&[u8]]) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let printed = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints a table, without lines around it so that tools can cut it.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> std::io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    line(&table.trim_fmt())
}

/// An error of one item, for programs.
pub(crate) fn error(error: &ItemError) -> Value {
    json!({ "reason": error.reason().as_str(), "message": error.message(), "retryable": error.is_retryable() })
}

/// An error of one item, for people, to standard error.
pub(crate) fn complain(place: &str, error: &ItemError) {
    let hint = hint(error.reason()).map(|hint| format!("; {hint}")).unwrap_or_default();
    eprintln!("vaultctl: {place}: {}{hint}", error.message());
}

/// Prints the answers of a batch. JSON: an array of objects, each with `name` (its `places`' name) and either what
/// `object` gives or `error`. Else: what `people` does with the good ones, and a complaint for each bad one.
pub(crate) fn batch<T>(
    as_json: bool,
    place_name: &str,
    results: &[(String, Result<T, ItemError>)],
    object: impl Fn(&T) -> Map<String, Value>,
    people: impl FnOnce(&[(&str, &T)]) -> std::io::Result<()>,
) -> std::io::Result<Exit> {
    if as_json {
        let one = |(place, result): &(String, Result<T, ItemError>)| {
            let mut map = Map::from_iter([(place_name.to_owned(), json!(place))]);
            match result {
                Ok(good) => map.extend(object(good)),
                Err(bad) => {
                    map.insert("error".to_owned(), error(bad));
                }
            }
            Value::Object(map)
        };
        json(&results.iter().map(one).collect())?;
    } else {
        let good: Vec<_> = results
            .iter()
            .filter_map(|(place, result)| Some((place.as_str(), result.as_ref().ok()?)))
            .collect();
        if !good.is_empty() {
            people(&good)?;
        }
        for (place, result) in results {
            if let Err(bad) = result {
                complain(place, bad);
            }
        }
    }
    Ok(exit_of_items(results.iter().map(|(_, result)| result.as_ref().err())))
}

/// A JSON object with one member.
pub(crate) fn member(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}
