//! What deciding costs: the vault with its default policies, limits on everything and honeytokens, against the same vault with
//! policies that answer a constant yes and nothing that is counted.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use vault_client::keys::Note;
use vault_client::{Client, DataClass, NewValue, Plaintext, Purpose};
use vault_server::access::{Access, Action, Directory, Policies, Question, TenantScope};
use vault_server::domain::{ClassName, Environment, PrincipalId, TenantId};

use crate::load::{Case, Target};
use crate::report::{self, Row};
use crate::servers::ready;

/// Says yes to everybody and everything, without a look at anything.
const YES: &str = "@id(\"yes\")\npermit (principal, action, resource);\n";
/// Counts everything that is detokenized, over windows so short that a limit is never crossed; and all else there is.
const USAGE: &str = r#"
[usage]
first_seen_tenant = true
[[usage.limits]]
name = "requests"
actions = ["detokenize"]
window = "1s"
requests = 1000000
then = "deny"
[[usage.limits]]
name = "values"
roles = ["service"]
actions = ["detokenize"]
window = "1s"
values = 1000000
then = "deny"
[[usage.limits]]
name = "subjects"
kinds = ["service"]
actions = ["detokenize"]
classes = ["ssn", "dob"]
window = "1s"
subjects = 1000000
then = "deny"
[[usage.hours]]
name = "office"
roles = ["oncall"]
from = "06:00"
to = "20:00"
offset = "+00:00"
"#;
/// Values that nobody has reason to use.
const HONEYTOKENS: usize = 100;
/// Detokenize, in each of its forms.
const CASES: [Case; 3] = [Case::DetokenizeOne, Case::DetokenizeBatch, Case::DetokenizeStream];

pub(crate) async fn run(callers: usize, rounds: usize, time: Duration, only: &str) -> anyhow::Result<()> {
    decisions()?;
    let (plain, full) = (Vault::start(Kind::Yes)?, Vault::start(Kind::Full)?);
    full.plant().await?;
    let (yes, all) = (plain.target().await?, full.target().await?);
    let cases = CASES.into_iter().filter(|case| case.name().starts_with(only));
    for (number, case) in cases.enumerate() {
        let mut pairs = Vec::new();
        for round in 0..rounds {
            // Each is the first one as often as the other.
            let pair = if round % 2 == 0 {
                let bare = yes.measure(case, callers, time).await?;
                (bare, all.measure(case, callers, time).await?)
            } else {
                let real = all.measure(case, callers, time).await?;
                (yes.measure(case, callers, time).await?, real)
            };
            pairs.push(pair);
        }
        report::print(["yes", "full"], &[Row::new(case, pairs)], number == 0);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Yes,
    Full,
}

/// A vault of its own, ended with this.
struct Vault {
    dir: TempDir,
    address: String,
    child: Child,
}

impl Vault {
    fn start(kind: Kind) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        // Beside the binary: the store's directory is on a disk that syncs, not on a tmpfs.
        let dir = TempDir::new_in(here.parent().unwrap_or(Path::new(".")))?;
        let home = dir.path().join("vault");
        // The first start makes the files.
        let (mut child, _) = serve(&home)?;
        child.kill()?;
        child.wait()?;
        let config = home.join("vault.toml");
        let text = fs::read_to_string(&config)?;
        let text = match kind {
            Kind::Yes => {
                fs::write(home.join("yes.cedar"), YES)?;
                anyhow::ensure!(text.contains("[access]\n"), "no section [access]");
                text.replace("[access]\n", "[access]\npolicy = \"yes.cedar\"\n")
            }
            Kind::Full => format!("{text}\n{USAGE}"),
        };
        fs::write(&config, text)?;
        let (child, address) = serve(&home)?;
        Ok(Self { dir, address, child })
    }

    async fn target(&self) -> anyhow::Result<Target> {
        Target::connect(&self.dir.path().join("vault/pki"), &[&self.address]).await
    }

    async fn plant(&self) -> anyhow::Result<()> {
        let admin = Client::from_profile(self.dir.path().join("vault/profile.toml"), Some("admin"))?;
        for number in 1..=HONEYTOKENS {
            let value = NewValue::new(DataClass::SSN, Plaintext::new(format!("999-55-{number:04}")));
            admin.plant_honeytoken(value, "bench", &Note::default()).await?;
        }
        Ok(())
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(home: &Path) -> anyhow::Result<(Child, String)> {
    let server = std::env::current_exe()?.with_file_name("vault-server");
    anyhow::ensure!(server.exists(), "build it first: cargo build --release --bin vault-server");
    let mut command = Command::new(server);
    command.arg("dev").arg("--dir").arg(home).args(["--listen", "127.0.0.1:0"]).stderr(Stdio::null());
    ready(command)
}

/// How long one decision takes: the first one on a question, and those after it.
fn decisions() -> anyhow::Result<()> {
    const TIMES: u32 = 200_000;
    let tenant = TenantId::parse("demo")?;
    let place = TenantScope::One(tenant.clone());
    let directory = "[[principal]]\nid = 'a'\nkind = 'service'\nidentities = ['spiffe://bench.local/a']\n\
                     [principal.roles]\ndemo = ['service']\n";
    let policies =
        || Policies::builtin(Environment::parse("dev").context("environment")?).context("policies");
    let classes =
        ["ssn", "dob", "mrn", "email"].map(ClassName::parse).into_iter().collect::<Result<Vec<_>, _>>()?;
    let access = Access::new(Directory::parse(directory)?, policies()?);
    let principal = access.principal(&PrincipalId::parse("a")?).context("nobody")?;
    let ask = |access: &Access| {
        for class in &classes {
            let purpose = Some(Purpose::Treatment);
            let question = Question { action: Action::Detokenize, class: Some(class), purpose, grant: None };
            assert!(black_box(access.explain(&principal, &place, question)).allowed, "refused");
        }
    };
    let first = Instant::now();
    ask(&access);
    let first = first.elapsed() / 4;
    let begin = Instant::now();
    for _ in 0..TIMES {
        ask(&access);
    }
    println!("a decision: {first:.2?} when it is asked first, {:.2?} then", begin.elapsed() / (4 * TIMES));
    Ok(())
}
