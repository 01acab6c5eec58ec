//! What the access layer keeps is the vault's alone: who writes to its database makes nobody and grants nothing. A vault from
//! before rows had seals gets them by a command, once.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::block_in_place;
use vault_proto::v1::break_glass_service_client::BreakGlassServiceClient;
use vault_proto::v1::{self, GrantState, SecondFactorAction};
use vault_server::access::{
    Principal, PrincipalKind, Role, TenantScope, next_generation, read_principal, write_principal,
};
use vault_server::app::config::Config;
use vault_server::app::init::ROOT_KEY_FILE;
use vault_server::audit::{
    self, AuditAction, Draft, Follower, FollowerOptions, KeyJournal, Log, LogOptions, VaultSigning,
};
use vault_server::domain::{
    Clock, Entity, EntityKind, EntityScope, KeyPurpose, PrincipalId, ROW_SEAL, RequestId, SystemClock,
};
use vault_server::keyring::{CacheOptions, Keyring};
use vault_server::kms::{LocalKms, WrappingKeys};
use vault_server::store::{Change, Store, Write};
use vault_tests::database::Database;
use vault_tests::process::{DevVault, Ran, binary};
use vault_tests::site::Site;
use vault_tests::wire::Wire;

use crate::bad_database::Ended;
use crate::break_glass::{VALUES, reason, touch, with_keys};

/// Within this a change is in force, on a busy machine too.
const BOUND: Duration = Duration::from_secs(20);

/// A vault with two people's certificates that it does not know, and security keys for those who break the glass.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    for id in ["ann", "bob"] {
        site.add_identity(id);
    }
    site.edit("principals.toml", |text| with_keys(&text));
    site
}

fn spiffe(id: &str) -> String {
    format!("spiffe://dev.phi-vault.internal/{id}")
}

fn add(vault: &DevVault, id: &str) {
    let spiffe = spiffe(id);
    let add = ["--tenant", "*", "principals", "add", id, "--kind", "human", "--identity", &spiffe];
    vault.ctl("admin", &[&add[..], &["--role", "demo=console"]].concat()).ok();
}

/// A principal's row as the access layer writes it.
fn row(id: &str, role: Role) -> Entity {
    write_principal(&Principal {
        id: PrincipalId::parse(id).unwrap(),
        kind: PrincipalKind::Human,
        identities: [spiffe(id)].into(),
        roles: [(TenantScope::All, std::iter::once(role).collect())].into(),
        owner: None,
        enabled: true,
        expires: None,
        revision: None,
    })
}

async fn put(store: &dyn Store, entity: Entity) {
    store.commit(Change { writes: vec![Write::PutEntity(entity)], entries: Vec::new() }).await.unwrap();
}

async fn rows(store: &dyn Store, kind: EntityKind) -> Vec<Entity> {
    store.entities(&EntityScope::Kind(kind), None, 1000).await.unwrap()
}

/// A grant that is approved and in force.
async fn granted(vault: &DevVault, key: &str) -> v1::Grant {
    let tokens = Wire::connect(vault, "service").await.tokens("ssn", &VALUES).await;
    let oncall = Wire::connect(vault, "oncall").await;
    let mut request = v1::RequestGrantRequest {
        scope: Some(v1::GrantScope { tokens, data_classes: vec!["ssn".to_owned()], ..Default::default() }),
        reason_code: "patient_safety".to_owned(),
        reason: "The patient in bay 4 does not answer".to_owned(),
        values: 10,
        idempotency_key: key.to_owned(),
        ..Default::default()
    };
    request.second_factor = Some(touch(&oncall, 1, SecondFactorAction::GrantRequest, &request).await);
    let mut glass = BreakGlassServiceClient::new(oncall.channel.clone());
    let grant = glass.request_grant(request).await.unwrap().into_inner().grant.unwrap();
    let approver = Wire::connect(vault, "approver").await;
    let mut approvals = BreakGlassServiceClient::new(approver.channel.clone());
    let get = v1::GetGrantRequest { grant_id: grant.id.clone(), ..Default::default() };
    let terms_hash = approvals.get_grant(get).await.unwrap().into_inner().terms_hash;
    let mut approval =
        v1::ApproveGrantRequest { grant_id: grant.id.clone(), terms_hash, ..Default::default() };
    approval.second_factor = Some(touch(&approver, 2, SecondFactorAction::GrantApprove, &approval).await);
    let grant = approvals.approve_grant(approval).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(grant.state(), GrantState::Active);
    grant
}

/// How many values the grant gives; or why none.
async fn reveal(vault: &DevVault, grant: &v1::Grant) -> Result<usize, String> {
    let mut glass = BreakGlassServiceClient::new(Wire::connect(vault, "oncall").await.channel);
    let request = v1::RevealRequest {
        grant_id: grant.id.clone(),
        tokens: grant.tokens[..1].to_vec(),
        ..Default::default()
    };
    match glass.reveal(request).await {
        Ok(answer) => {
            let told = |result: &v1::RevealResult| {
                matches!(result.outcome, Some(v1::reveal_result::Outcome::Value(_)))
            };
            Ok(answer.into_inner().results.iter().filter(|result| told(result)).count())
        }
        Err(status) => Err(format!("{:?} {}", status.code(), reason(&status))),
    }
}

/// The row of a grant, among all there are.
fn is_of(grant: &v1::Grant) -> impl Fn(&&Entity) -> bool {
    let id = grant.id.clone();
    move |row| row.place.tenant.is_some() && hex::encode(row.place.name.as_bytes()) == id
}

fn named(row: &Entity) -> String {
    format!("{} {}", row.place.kind.as_str(), hex::encode(row.place.name.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_forged_while_nobody_served_give_nothing() {
    let dir = TempDir::new().unwrap();
    let site = block_in_place(|| site(&dir));
    let vault = block_in_place(|| site.serve());
    block_in_place(|| add(&vault, "ann"));
    let [bare, altered, good] =
        [granted(&vault, "1").await, granted(&vault, "2").await, granted(&vault, "3").await];
    assert_eq!(reveal(&vault, &bare).await, Ok(1));
    assert_eq!(block_in_place(|| vault.stop()), Some(0));

    let store = site.open_store().await;
    let ann = rows(&*store, EntityKind::Principal).await;
    let ann = ann.iter().find(|there| there.place == row("ann", Role::Console).place).unwrap().clone();
    let plain = Entity { content: ann.content[ROW_SEAL..].to_vec(), ..ann.clone() };
    assert_eq!(read_principal(&plain).unwrap().unwrap().id.as_str(), "ann");
    // An admin out of nothing, and another one by the seal of somebody else.
    let bob = row("bob", Role::Admin);
    put(&*store, bob.clone()).await;
    let eve = row("eve", Role::Admin);
    put(&*store, Entity { content: ann.content.clone(), ..eve.clone() }).await;
    // A grant as the access layer wrote it, but for the seal; and one with a byte altered.
    let grants = rows(&*store, EntityKind::Grant).await;
    let bare_row = grants.iter().find(is_of(&bare)).unwrap().clone();
    let content = bare_row.content[ROW_SEAL..].to_vec();
    put(&*store, Entity { revision: bare_row.revision + 1, content, ..bare_row.clone() }).await;
    let altered_row = grants.iter().find(is_of(&altered)).unwrap().clone();
    let mut content = altered_row.content.clone();
    *content.last_mut().unwrap() ^= 1;
    put(&*store, Entity { revision: altered_row.revision + 1, content, ..altered_row.clone() }).await;
    store.close().await.unwrap();

    let vault = block_in_place(|| site.serve());
    block_in_place(|| {
        vault.ctl("bob", &["whoami"]).ends(3);
        vault.ctl("ann", &["whoami"]).ok();
    });
    for grant in [&bare, &altered] {
        let refused = reveal(&vault, grant).await.unwrap_err();
        assert!(refused.contains("DataLoss") || refused.contains("CORRUPT"), "{refused}");
    }
    assert_eq!(reveal(&vault, &good).await, Ok(1), "what was not altered is good");
    for forged in [&bob, &eve, &bare_row, &altered_row] {
        assert!(vault.log().contains(&named(forged)), "{} is not named in\n{}", named(forged), vault.log());
    }
    assert!(!vault.log().contains("panicked"), "{}", vault.log());
    assert_eq!(block_in_place(|| vault.stop()), Some(0));
}

/// With the right checksum, which anybody can compute: `space(1) | 4:key | version(1) revision(8) 4:content`.
const CHECKSUMS: &str = "UPDATE entities SET checksum = \
                         substring(sha256('\\x0f'::bytea || int4send(length(place)) || place || content) for 8)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_administrator_of_the_database_forges_give_nothing() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("vault");
    let Some(database) = block_in_place(Database::create) else { return };
    let site = block_in_place(|| {
        if Database::is_wanted() {
            return site(&dir);
        }
        DevVault::start_with(&home, &["--postgres", &database.url()], &[]).stop();
        let site = Site::of(&home);
        for id in ["ann", "bob"] {
            site.add_identity(id);
        }
        site.edit("principals.toml", |text| with_keys(&text));
        site
    });
    let database = site.database().unwrap();
    let vault = block_in_place(|| site.serve());
    let grant = granted(&vault, "1").await;
    assert_eq!(reveal(&vault, &grant).await, Ok(1));
    let bob = row("bob", Role::Admin);
    block_in_place(|| {
        let hexed = |bytes: &[u8]| format!("'\\x{}'::bytea", hex::encode(bytes));
        // kind | tenant | 0 | name
        let place = [&[bob.place.kind.number(), 0][..], bob.place.name.as_bytes()].concat();
        // version | revision | 4:content
        let length = u32::try_from(bob.content.len()).unwrap();
        let content = [&[1][..], &[0; 8], &length.to_be_bytes(), &bob.content].concat();
        let (place, content) = (hexed(&place), hexed(&content));
        database.sql(&format!(
            "INSERT INTO entities (place, revision, content, checksum) VALUES ({place}, 0, {content}, ''); \
             UPDATE entities SET content = set_byte(content, length(content) - 1, get_byte(content, length(content) - 1) # 1) \
             WHERE substring(place for 1) = '\\x05' AND position('demo'::bytea in place) = 2; {CHECKSUMS}"
        ));
        // Malformed: one of no checksum, and some at no place of a row.
        let eve = row("eve", Role::Admin);
        let eve = hexed(&[&[eve.place.kind.number(), 0][..], eve.place.name.as_bytes()].concat());
        database.sql(&format!(
            "INSERT INTO entities (place, revision, content, checksum) VALUES \
             ({eve}, 0, {content}, ''), ('\\x01', 0, 'x', ''), ('\\x0100', 0, 'x', ''), ('\\x01ff', 0, 'x', '')"
        ));
        // With the next change of a principal all of them are read.
        add(&vault, "ann");
        let until = Instant::now() + BOUND;
        while vault.ctl("ann", &["whoami"]).run().code != Some(0) {
            assert!(Instant::now() < until, "{}", vault.log());
        }
        vault.ctl("bob", &["whoami"]).ends(3);
    });
    let refused = reveal(&vault, &grant).await.unwrap_err();
    assert!(refused.contains("DataLoss") || refused.contains("CORRUPT"), "{refused}");
    for named in
        [named(&bob), named(&row("eve", Role::Admin)), format!("grant {}", grant.id), "01ff".to_owned()]
    {
        assert!(vault.log().contains(&named), "{named} is not named in\n{}", vault.log());
    }
    // Everything else is as it was.
    let token = Wire::connect(&vault, "service").await.tokens("ssn", &["999-31-4105"]).await;
    assert_eq!(
        Wire::connect(&vault, "service").await.values("", &token).await,
        [Ok("999-31-4105".to_owned())]
    );

    // Who removes the key removes the vault's trust in every row, and gets none in its own.
    assert_eq!(block_in_place(|| vault.stop()), Some(0));
    block_in_place(|| {
        database.sql(
            "CREATE TABLE kept AS SELECT * FROM keys WHERE purpose = 4; DELETE FROM keys WHERE purpose = 4",
        );
        is_refused(&site, "restore it");
        let ran = seal_rows(&site, &[]);
        assert!(ran.code == Some(1) && ran.stderr.contains("it was removed"), "{}", ran.stderr);
        database.sql("DELETE FROM entities");
        is_refused(&site, "restore it");
        database.sql("INSERT INTO keys SELECT * FROM kept");
        let vault = site.serve();
        vault.ctl("bob", &["whoami"]).ends(3);
        assert_eq!(vault.stop(), Some(0));
    });
}

/// A start that must end by itself, with these words.
fn is_refused(site: &Site, why: &str) {
    let ended = Ended::of(&site.dir().join("vault.toml"), Duration::from_mins(1));
    assert_eq!(ended.code, Some(1), "{}", ended.says);
    assert!(ended.says.contains(why) && !ended.says.contains("panicked"), "no {why:?} in {}", ended.says);
}

fn seal_rows(site: &Site, args: &[&str]) -> Ran {
    let mut command = Command::new(binary("vault-server"));
    command.args(["seal-rows", "--config"]).arg(site.dir().join("vault.toml")).args(args);
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Makes the store as software did that knows no seals: a signed log that tells of no key for them, and rows as they were.
async fn of_before(site: &Site, entities: Vec<Entity>) {
    let config = Config::load(&site.dir().join("vault.toml")).unwrap();
    let (identity, store) = (config.identity(), site.open_store().await);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    store.found(&identity).await.unwrap();
    let kms = LocalKms::open(&site.dir().join(ROOT_KEY_FILE)).unwrap();
    let keyring = Arc::new(Keyring::new(
        identity.clone(),
        Arc::clone(&store),
        WrappingKeys::new(vec![Arc::new(kms)]),
        Arc::new(KeyJournal::new(Arc::clone(&clock))),
        Arc::clone(&clock),
        CacheOptions { lifetime: Duration::from_mins(1), max_uses: 1000, max_entries: 10 },
    ));
    let day = Duration::from_hours(24);
    let signing = Arc::new(VaultSigning::new(keyring, &identity, Arc::clone(&clock), day));
    let origin = audit::origin(&identity, store.log());
    let options = FollowerOptions { checkpoint_every: Duration::from_millis(10) };
    let follower =
        Follower::start(Arc::clone(&store), signing, &origin, Arc::clone(&clock), options).await.unwrap();
    let options = LogOptions { deadline: Duration::from_mins(1), max_in_flight: 1 };
    let log = Log::new(Arc::clone(&store), clock, options);
    let draft = Draft::of_vault(RequestId::random().unwrap(), AuditAction::Start);
    let writes = entities.into_iter().map(Write::PutEntity).collect();
    log.commit(draft, Vec::new(), writes).await.unwrap();
    follower.stop(Duration::from_mins(1)).await;
    assert!(store.keys(None, KeyPurpose::RowMac).await.unwrap().is_empty());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_from_before_there_were_seals_is_sealed_once() {
    let dir = TempDir::new().unwrap();
    let site = block_in_place(|| site(&dir));
    of_before(&site, vec![row("ann", Role::Console), next_generation(None).unwrap()]).await;
    block_in_place(|| {
        is_refused(&site, "vault-server seal-rows");
        let shown = seal_rows(&site, &["--dry-run"]);
        assert!(
            shown.code == Some(0) && shown.stdout.contains("ann: *:console"),
            "{}{}",
            shown.stdout,
            shown.stderr
        );
        is_refused(&site, "vault-server seal-rows");
        let sealed = seal_rows(&site, &[]);
        assert!(sealed.code == Some(0), "{}{}", sealed.stdout, sealed.stderr);
        assert!(sealed.stdout.contains("ann: *:console"), "{}", sealed.stdout);
        assert!(sealed.stdout.contains("sealed: principal 2"), "{}", sealed.stdout);
        let vault = site.serve();
        vault.ctl("ann", &["whoami"]).ok();
        let query = ["--tenant", "*", "--json", "audit", "query", "--action", "rows_sealed", "--limit", "10"];
        let told = vault.ctl("auditor", &query).ok().stdout;
        assert!(told.contains("\"begun\"") && told.contains("\"done\""), "{told}");
        let keys = vault.ctl("admin", &["--tenant", "*", "keys", "list"]).ok().stdout;
        assert!(keys.contains("row-mac") && keys.contains("log-signing"), "{keys}");
        let log = dir.path().join("log").display().to_string();
        let key = dir.path().join("log.vkey").display().to_string();
        vault.ctl("auditor", &["audit", "export", "--dir", &log, "--key-out", &key]).ok();
        vault.ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key]).ok();
        assert_eq!(vault.stop(), Some(0));
    });
    // What comes without a seal after that stays without one.
    let store = site.open_store().await;
    put(&*store, row("bob", Role::Admin)).await;
    store.close().await.unwrap();
    block_in_place(|| {
        let told = seal_rows(&site, &[]);
        assert!(
            told.code == Some(1) && told.stdout.contains("not the vault's"),
            "{}{}",
            told.stdout,
            told.stderr
        );
        let vault = site.serve();
        vault.ctl("bob", &["whoami"]).ends(3);
        vault.ctl("ann", &["whoami"]).ok();
        assert_eq!(vault.stop(), Some(0));
    });
}
