//! `vaultctl principals` and `vaultctl whoami`

mod show;

use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use vault_client::principals::{Change, Kind, NewPrincipal, Principal, PrincipalChange};
use vault_client::{Client, Reason};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::paste::tell;
use crate::short_id::{self, ShortId};
use crate::touch::{TouchArgs, second_factor};
use crate::words::NoteArgs;

/// See, provision, change and disable principals.
#[derive(Subcommand)]
pub(crate) enum PrincipalsCommand {
    /// List those who have a role at the tenant; all with `--tenant '*'`.
    List,
    /// Show one.
    Show(IdArgs),
    /// Provision one.
    Add(AddArgs),
    /// Change what one is at the tenant, or as a whole.
    Change(ChangeArgs),
    /// Disable one: its next request is refused, on live connections too.
    Disable(StateArgs),
    /// Enable one again.
    Enable(StateArgs),
    /// List changes that wait for another person's approval; all with `--tenant '*'`.
    Pending,
    /// Approve a change that somebody else asked for, after a look at it in `pending`: it is made at once.
    Approve(ApproveArgs),
    /// Reject a change that waits, or take your own back.
    Reject(AnswerArgs),
}

#[derive(Args)]
pub(crate) struct AnswerArgs {
    /// The change's id, or its first digits (6 at least), as `pending` shows it.
    #[arg(value_name = "CHANGE")]
    id: ShortId<OfChange>,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    answer: AnswerArgs,

    #[command(flatten)]
    touch: TouchArgs,
}

#[derive(Debug, Clone)]
struct OfChange;

impl short_id::Kind for OfChange {
    const NAME: &'static str = "change";
    const LIST: &'static str = "principals pending";
}

#[derive(Args)]
pub(crate) struct IdArgs {
    /// Whose: the principal's id, as `principals list` has it.
    id: String,
}

#[derive(Args)]
pub(crate) struct StateArgs {
    /// Whose: the principal's id, as `principals list` has it.
    id: String,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Its id: in the log and in policies, and never given to another one.
    id: String,

    /// What it is.
    #[arg(long, value_enum)]
    kind: KindName,

    /// By which credentials it is known: `spiffe://...` or `subject:CN=...`. Any number.
    #[arg(long = "identity", value_name = "IDENTITY", required = true)]
    identities: Vec<String>,

    /// What it is at the tenant, or `TENANT=ROLE`. Any number.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<String>,

    /// Who answers for it.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,

    /// From when on it may not call any more (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires: Option<SystemTime>,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// Whose: the principal's id, as `principals list` has it.
    id: String,

    /// What it is at the tenant from now on, or `TENANT=ROLE`: these roles and no others. Any number.
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "no_roles")]
    roles: Vec<String>,

    /// Take all its roles at the tenant.
    #[arg(long)]
    no_roles: bool,

    /// By which credentials it is known from now on: these and no others. Any number.
    #[arg(long = "identity", value_name = "IDENTITY")]
    identities: Vec<String>,

    /// Who answers for it.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,

    /// From when on it may not call any more (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires: Option<SystemTime>,

    #[command(flatten)]
    note: NoteArgs,
}

/// Kinds by name.
#[derive(Clone, Copy, ValueEnum)]
enum KindName {
    /// A program.
    Service,
    /// One person.
    Human,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Service => Self::Service,
            KindName::Human => Self::Human,
        }
    }
}

pub(crate) async fn run(global: &Global, command: PrincipalsCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        PrincipalsCommand::List => show::principals(global.json, &client.list_principals().await?)?,
        PrincipalsCommand::Show(IdArgs { id }) => {
            show::principals(global.json, &[find(&client, &id).await?])?;
        }
        PrincipalsCommand::Add(args) => {
            let mut new = NewPrincipal::new(args.id, args.kind.into(), "");
            new.identities = args.identities;
            new.owner = args.owner;
            new.expires = args.expires;
            let mut principal = Principal::from(new);
            set_roles(&mut principal, &tenant_of(&client).await?, &args.roles)?;
            return told(global, client.put_principal(&principal, &args.note.into()).await?);
        }
        PrincipalsCommand::Change(args) => {
            return told(global, change(&client, args).await?);
        }
        PrincipalsCommand::Disable(StateArgs { id, note }) => {
            return told(global, client.set_principal_state(&id, false, &note.into()).await?);
        }
        PrincipalsCommand::Enable(StateArgs { id, note }) => {
            return told(global, client.set_principal_state(&id, true, &note.into()).await?);
        }
        PrincipalsCommand::Pending => pending(global, &client).await?,
        PrincipalsCommand::Approve(args) => approve(global, &client, args).await?,
        PrincipalsCommand::Reject(args) => reject(global, &client, args).await?,
    }
    Ok(Exit::Done)
}

/// Shows who the identity is.
pub(crate) async fn who_am_i(global: &Global) -> Result<Exit, Failure> {
    show::oneself(global.json, &global.connect()?.who_am_i().await?)?;
    Ok(Exit::Done)
}

/// Shows what waits, and how it is answered.
async fn pending(global: &Global, client: &Client) -> Result<(), Failure> {
    let waiting = client.list_principal_changes().await?;
    show::changes(global.json, &waiting)?;
    if global.json {
        return Ok(());
    }
    if waiting.is_empty() {
        let everywhere = if client.tenant_name() == "*" { "" } else { "; `--tenant '*'` is for all tenants" };
        tell(&format!("no change waits for approval{everywhere}"));
    }
    let paste = global.paste();
    for change in waiting.iter().filter(|change| !change.superseded) {
        let command = |verb: &str| paste.mine(&change.tenant, &format!("principals {verb} {}", change.id));
        tell(&format!(
            "{} asked for this, and it is about {}: neither of them can approve it. another admin does, or rejects it\n    {}\n    {}",
            change.asked_by,
            change.principal_id,
            command("approve"),
            command("reject"),
        ));
    }
    Ok(())
}

/// Approves a change: as it is shown, and with a touch of the security key, if the vault wants one.
async fn approve(global: &Global, client: &Client, args: ApproveArgs) -> Result<(), Failure> {
    let ApproveArgs { answer: AnswerArgs { id, note }, touch } = args;
    let waiting = client.list_principal_changes().await?;
    let change = id.of(waiting, |change| change.id.clone())?;
    show::changes(global.json, std::slice::from_ref(&change))?;
    let approval = client.principal_change_approval(&change, &note.into());
    match client.approve_principal_change_by(&approval, None).await {
        Err(refused) if refused.reason() == Reason::SecondFactor => {
            let signer = touch.signer()?;
            let (_, factor) = second_factor(client, &signer, approval.action(), approval.hash()).await?;
            client.approve_principal_change_by(&approval, Some(factor)).await?;
        }
        done => done?,
    }
    if !global.json {
        tell(&approved(global, &change));
    }
    Ok(())
}

fn approved(global: &Global, change: &PrincipalChange) -> String {
    let whose = &change.principal_id;
    match &change.security_key {
        None => format!("done: {whose} is as shown from now on, on other instances within a second"),
        Some(key) => format!(
            "done: the security key {} is enrolled for {whose}\nnext: {whose} shows by a touch that it is there; until then it \
             counts for nothing\n{}",
            key.fingerprint,
            global.paste().theirs_told("", "security-keys confirm"),
        ),
    }
}

/// Rejects a change, or takes one's own back.
async fn reject(global: &Global, client: &Client, args: AnswerArgs) -> Result<(), Failure> {
    let id = match args.id.whole() {
        Some(id) => id.to_owned(),
        None => args.id.of(client.list_principal_changes().await?, |change| change.id.clone())?.id,
    };
    client.reject_principal_change(&id, &args.note.into()).await?;
    let text = format!(
        "the change {id} is rejected, and nothing has changed. what is still needed has to be asked for anew"
    );
    output::done(global.json, &json!({ "change": id, "rejected": true }), &text)?;
    Ok(())
}

/// Shows what became of a change.
fn told(global: &Global, change: Change) -> Result<Exit, Failure> {
    match change {
        Change::Waits(change) => {
            show::changes(global.json, std::slice::from_ref(&*change))?;
            if !global.json {
                tell(&waits(global, &change.tenant, &change.id));
            }
            Ok(Exit::AsksApproval)
        }
        change => {
            show::principals(global.json, change.made().as_slice())?;
            if !global.json {
                tell("done: in force from now on, on other instances within a second");
            }
            Ok(Exit::Done)
        }
    }
}

/// What has to happen with a change that waits.
pub(crate) fn waits(global: &Global, tenant: &str, id: &str) -> String {
    let paste = global.paste();
    format!(
        "nothing has changed yet: another admin has to approve it\n{}\nto take it back:\n    {}",
        paste.theirs_told(tenant, &format!("principals approve {id}")),
        paste.mine(tenant, &format!("principals reject {id}")),
    )
}

async fn change(client: &Client, args: ChangeArgs) -> Result<Change, Failure> {
    let mut principal = find(client, &args.id).await?;
    let tenant = tenant_of(client).await?;
    if args.roles.is_empty() && !args.no_roles {
        // As they are: of other tenants the vault keeps them by itself.
        principal.roles.retain(|place, _| tenant == "*" || *place == tenant);
    } else {
        set_roles(&mut principal, &tenant, &args.roles)?;
    }
    if !args.identities.is_empty() {
        principal.identities = args.identities;
    }
    principal.owner = args.owner.or(principal.owner);
    principal.expires = args.expires.or(principal.expires);
    Ok(client.put_principal(&principal, &args.note.into()).await?)
}

pub(crate) async fn find(client: &Client, id: &str) -> Result<Principal, Failure> {
    let known = client.list_principals().await?;
    known.into_iter().find(|principal| principal.id == id).ok_or_else(|| unknown(client.tenant_name()))
}

/// Nobody has this name where it was looked for.
pub(crate) fn unknown(tenant: &str) -> Failure {
    let place = match tenant {
        "" => "at this tenant",
        "*" => "in this vault",
        tenant => &format!("at tenant {tenant}"),
    };
    Failure::new(Exit::SomeFailed, Reason::NotFound, format!("no principal of this name has a role {place}")).hint(
        "the name is the principal's id: `vaultctl principals list` has those (all with --tenant '*'), and `vaultctl whoami` \
         one's own. the names that --as takes are the profile's, and may be others",
    )
}

/// The tenant that is acted for; the identity's own if none is named.
pub(crate) async fn tenant_of(client: &Client) -> Result<String, Failure> {
    match client.tenant_name() {
        "" => {
            let own = client.who_am_i().await?.principal.roles;
            let mut tenants = own.into_keys();
            match (tenants.next(), tenants.next()) {
                (Some(tenant), None) => Ok(tenant),
                _ => Err(Failure::wrong_use("the identity serves several tenants")
                    .hint("name the one that is acted for: --tenant TENANT")),
            }
        }
        tenant => Ok(tenant.to_owned()),
    }
}

/// Roles as they were given: `oncall`, `st-mary=oncall`.
fn set_roles(principal: &mut Principal, tenant: &str, given: &[String]) -> Result<(), Failure> {
    principal.roles.clear();
    for text in given {
        let (place, role) = text.split_once('=').unwrap_or((tenant, text));
        if place.is_empty() || role.is_empty() {
            return Err(Failure::wrong_use("a role is ROLE or TENANT=ROLE"));
        }
        principal.roles.entry(place.to_owned()).or_default().push(role.to_owned());
    }
    Ok(())
}

/// Parses a time.
fn moment(text: &str) -> Result<SystemTime, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "a time such as 2027-01-01T00:00:00Z (RFC 3339)".to_owned())?;
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_at_the_tenant_unless_they_name_one() {
        let mut principal = Principal::from(NewPrincipal::new("a", Kind::Human, "x"));
        let given = ["oncall", "st-mary=approver", "auditor", "*=auditor"].map(str::to_owned);
        set_roles(&mut principal, "demo", &given).unwrap();
        assert_eq!(principal.roles["demo"], ["oncall", "auditor"]);
        assert_eq!(principal.roles["st-mary"], ["approver"]);
        assert_eq!(principal.roles["*"], ["auditor"]);
        for bad in ["=oncall", "demo=", ""] {
            assert!(set_roles(&mut principal, "demo", &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
