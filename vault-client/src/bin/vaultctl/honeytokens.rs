//! `vaultctl honeytokens`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vault_client::honeytokens::Honeytoken;
use vault_client::{DataClass, NewValue, Token};

use crate::args::{Global, Subject};
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::words::NoteArgs;
use crate::{input, output};

/// Plant, list and remove values that nobody has any business with: touching one raises an alert.
#[derive(Subcommand)]
pub(crate) enum HoneytokensCommand {
    /// Plant the invented value on standard input; prints its token, alone on a line.
    Plant(PlantArgs),
    /// List those of the tenant.
    List,
    /// Make one a token like any other. Its value stays.
    Remove(RemoveArgs),
}

#[derive(Args)]
pub(crate) struct PlantArgs {
    /// What kind of value it is: `ssn`, `name`, `dob` ...
    #[arg(long, value_name = "CLASS")]
    class: DataClass,

    /// Where it is planted, for people; at most 128 characters.
    #[arg(long, default_value = "")]
    label: String,

    #[command(flatten)]
    subject: Subject,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// Its token.
    token: Token,

    #[command(flatten)]
    note: NoteArgs,
}

pub(crate) async fn run(global: &Global, command: HoneytokensCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        HoneytokensCommand::Plant(PlantArgs { class, label, subject, note }) => {
            let subject = input::subject(subject, true)?;
            let value = NewValue::new(class, input::value()?);
            let value = match subject {
                Some(subject) => value.about(subject),
                None => value,
            };
            let planted = client.plant_honeytoken(value, &label, &note.into()).await?;
            if global.json {
                output::line(&object(&planted).to_string())?;
            } else {
                output::line(planted.token.as_str())?;
            }
        }
        HoneytokensCommand::List => {
            let listed = client.list_honeytokens().await?;
            if listed.is_empty() && !global.json {
                tell("no honeytoken is planted at this tenant");
            } else if global.json {
                listed.iter().try_for_each(|honeytoken| output::line(&object(honeytoken).to_string()))?;
            } else {
                let header = ["TOKEN", "CLASS", "LABEL", "PLANTED", "TOUCHED", "BY"];
                output::table(&header, listed.iter().map(row))?;
            }
        }
        HoneytokensCommand::Remove(RemoveArgs { token, note }) => {
            client.remove_honeytoken(&token, &note.into()).await?;
            let object = json!({ "token": token.as_str(), "removed": true });
            output::done(global.json, &object, "it is a token like any other from now on")?;
        }
    }
    Ok(Exit::Done)
}

fn row(honeytoken: &Honeytoken) -> Vec<String> {
    let none = || "-".to_owned();
    let touched = honeytoken.touched.as_ref();
    vec![
        honeytoken.token.to_string(),
        honeytoken.class.clone(),
        honeytoken.label.clone(),
        honeytoken.planted.map_or_else(none, time),
        touched.map_or_else(none, |(at, _)| time(*at)),
        touched.map_or_else(none, |(_, by)| by.clone()),
    ]
}

fn object(honeytoken: &Honeytoken) -> Value {
    json!({
        "token": honeytoken.token.as_str(),
        "class": honeytoken.class,
        "label": honeytoken.label,
        "planted": honeytoken.planted.map(time),
        "first_touched": honeytoken.touched.as_ref().map(|(at, _)| time(*at)),
        "first_touched_by": honeytoken.touched.as_ref().map(|(_, by)| by),
    })
}
