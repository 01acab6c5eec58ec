//! `vaultctl policy`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use vault_client::policy::{AccessAnswer, AccessQuestion};
use vault_client::profile::from_toml;
use vault_client::{Client, Reason};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::{output, principals};

/// See what policies allow, and try others before they are in force. Nothing is changed.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell whether the vault would take a policy set (Cedar).
    Check(CheckArgs),
    /// Print what a policy set allows, by role and action: of that in force, or of a file.
    Matrix(MatrixArgs),
    /// Tell what a principal may do at the tenant, and which policies say so.
    Explain(ExplainArgs),
    /// Ask about each case of a file, and compare with what it expects.
    Test(TestArgs),
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The policies.
    file: PathBuf,
}

#[derive(Args)]
pub(crate) struct MatrixArgs {
    /// The policies; none: those in force.
    file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Who: the id of a principal with a role at the tenant, as `principals list` has it.
    principal: String,

    /// What: `detokenize`, `grant_approve` ... All actions, if none is named.
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// To values of which class.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,

    /// For which purpose of use: TREAT, BTG ...
    #[arg(long, value_name = "CODE")]
    purpose: Option<String>,

    /// As if there were a grant of break-glass with so many approvals.
    #[arg(long, value_name = "N")]
    with_grant: Option<u32>,

    /// By the policies of this file instead of those in force.
    #[arg(long, value_name = "FILE")]
    policies: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// TOML: `[[case]]` with `principal`, `action`, `allowed`, and if you like `tenant`, `class`, `purpose`, `with_grant`.
    file: PathBuf,

    /// By the policies of this file instead of those in force.
    #[arg(long, value_name = "FILE")]
    policies: Option<PathBuf>,
}

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// Something that somebody may do, or may not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    principal: String,
    tenant: Option<String>,
    action: String,
    class: Option<String>,
    purpose: Option<String>,
    with_grant: Option<u32>,
    allowed: bool,
}

pub(crate) async fn run(global: &Global, command: PolicyCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        PolicyCommand::Check(args) => check(global.json, &client, &args.file).await,
        PolicyCommand::Matrix(args) => {
            let text = client.policy_matrix(&some_file(args.file.as_deref())?).await?;
            if global.json {
                output::json(&json!({ "matrix": text }))?;
            } else {
                output::bytes(&[text.as_bytes()])?;
            }
            Ok(Exit::Done)
        }
        PolicyCommand::Explain(args) => explain(global.json, &client, args).await,
        PolicyCommand::Test(args) => test(global.json, &client, args).await,
    }
}

async fn check(as_json: bool, client: &Client, file: &Path) -> Result<Exit, Failure> {
    let checked = client.check_policies(&read(file)?).await?;
    let exit = if checked.faults.is_empty() { Exit::Done } else { Exit::SomeFailed };
    if as_json {
        let fault = |fault: &vault_client::policy::PolicyFault| json!({ "policy": fault.policy, "fault": fault.fault });
        let faults: Vec<_> = checked.faults.iter().map(fault).collect();
        output::json(&json!({ "faults": faults, "policies": checked.ids }))?;
        return Ok(exit);
    }
    for fault in &checked.faults {
        let policy = if fault.policy.is_empty() { "the set" } else { &fault.policy };
        output::line(&format!("{policy}: {}", fault.fault))?;
    }
    if exit == Exit::Done {
        output::line(&format!("the vault would take it: {} policies", checked.ids.len()))?;
    }
    Ok(exit)
}

async fn explain(as_json: bool, client: &Client, args: ExplainArgs) -> Result<Exit, Failure> {
    let mut question = AccessQuestion::of(args.principal);
    question.action = args.action.unwrap_or_default();
    question.class = args.class.unwrap_or_default();
    question.purpose = args.purpose.unwrap_or_default();
    question.grant = args.with_grant;
    question.policies = some_file(args.policies.as_deref())?;
    let answer = client.explain_access(&question).await;
    let AccessAnswer { actions, roles, unable } = answer.map_err(|error| not_explained(client, error))?;
    if as_json {
        let action = |answer: &vault_client::policy::ActionAnswer| json!({ "action": answer.action, "allowed": answer.allowed, "policies": answer.policies });
        let actions: Vec<_> = actions.iter().map(action).collect();
        output::json(&json!({ "actions": actions, "roles": roles, "unable": unable }))?;
        return Ok(Exit::Done);
    }
    let row = |answer: &vault_client::policy::ActionAnswer| {
        let why = match &*answer.policies {
            [] => "nothing permits it".to_owned(),
            policies => policies.join(" "),
        };
        vec![answer.action.clone(), if answer.allowed { "yes" } else { "no" }.to_owned(), why]
    };
    output::table(&["ACTION", "ALLOWED", "POLICIES"], actions.iter().map(row))?;
    eprintln!(
        "vaultctl: roles at the tenant: {}",
        if roles.is_empty() { "none".to_owned() } else { roles.join(" ") }
    );
    if !unable.is_empty() {
        eprintln!("vaultctl: but it can't call at all now: {unable}");
    }
    Ok(Exit::Done)
}

async fn test(as_json: bool, client: &Client, args: TestArgs) -> Result<Exit, Failure> {
    let cases = cases(&read(&args.file)?)?;
    let policies = some_file(args.policies.as_deref())?;
    let mut failed = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let mut question = AccessQuestion::of(&case.principal);
        question.action.clone_from(&case.action);
        question.class = case.class.clone().unwrap_or_default();
        question.purpose = case.purpose.clone().unwrap_or_default();
        question.grant = case.with_grant;
        question.policies.clone_from(&policies);
        let there = match &case.tenant {
            Some(tenant) => &client.for_tenant(tenant),
            None => client,
        };
        let answer = there.explain_access(&question).await;
        let answer = answer.map_err(|error| not_explained(there, error).of_case(at + 1))?;
        let [answer] = &*answer.actions else {
            return Err(Failure::wrong_use(format!("case {}: it names no action", at + 1)));
        };
        if answer.allowed != case.allowed {
            failed.push((at + 1, case, answer.policies.join(" ")));
        }
    }
    if as_json {
        let case = |(number, case, policies): &(usize, &Case, String)| {
            json!({ "case": number, "principal": case.principal, "action": case.action, "expected": case.allowed,
                "policies": policies })
        };
        let of: Vec<_> = failed.iter().map(case).collect();
        output::json(&json!({ "cases": cases.len(), "failed": of }))?;
    } else {
        for (number, case, policies) in &failed {
            let (is, not) = if case.allowed { ("allowed", "is not") } else { ("refused", "is allowed") };
            let by = if policies.is_empty() { "nothing permits it" } else { policies };
            let Case { principal, action, .. } = case;
            output::line(&format!("case {number}: {principal} {action} should be {is}, and {not}: {by}"))?;
        }
        output::line(&format!("{} of {} cases hold", cases.len() - failed.len(), cases.len()))?;
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::SomeFailed })
}

/// Why nothing is told of a principal's access.
fn not_explained(client: &Client, error: vault_client::Error) -> Failure {
    if error.reason() == Reason::NotFound { principals::unknown(client.tenant_name()) } else { error.into() }
}

fn cases(text: &str) -> Result<Vec<Case>, Failure> {
    let wrong = |error| Failure::wrong_use(format!("not a file of cases: {error}"));
    let Cases { case } = from_toml(text).map_err(wrong)?;
    match case.iter().position(|case| case.action.is_empty() || case.principal.is_empty()) {
        Some(at) => Err(Failure::wrong_use(format!("case {}: it needs a principal and an action", at + 1))),
        None => Ok(case),
    }
}

fn some_file(file: Option<&Path>) -> Result<String, Failure> {
    let Some(file) = file else { return Ok(String::new()) };
    let text = read(file)?;
    // What is empty would mean the set in force.
    if text.trim().is_empty() { Err(Failure::wrong_use("the file has no policy in it")) } else { Ok(text) }
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::wrong_use(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = "[[case]]\nprincipal = 'ann'\naction = 'detokenize'\nallowed = false\n";

    #[test]
    fn a_case_says_who_what_and_whether() {
        let more = "tenant = 'demo'\nclass = 'ssn'\npurpose = 'BTG'\nwith_grant = 1\n";
        assert_eq!(cases(&format!("{CASE}{more}{CASE}")).map(|cases| cases.len()).ok(), Some(2));
        for bad in [
            "",
            "[[case]]\nprincipal = 'ann'\nallowed = false\n",
            "[[case]]\nprincipal = 'ann'\naction = 'mask'\n",
            "[[case]]\nprincipal = 'ann'\naction = ''\nallowed = false\n",
            &format!("{CASE}alowed = true\n"),
        ] {
            assert!(cases(bad).is_err(), "{bad}");
        }
    }
}
