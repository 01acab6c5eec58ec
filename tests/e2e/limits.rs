//! Limits of principals, over a restart.

use std::path::Path;

use tempfile::TempDir;
use vault_client::{Client, DataClass, NewValue, Plaintext, Reason};
use vault_tests::site::Site;

const SECTION: &str = "\n[usage]\nfirst_seen_tenant = true\n[[usage.limits]]\nname = \"bulk\"\nprincipals = [\"service\"]\n\
                       actions = [\"mask\"]\nwindow = \"31d\"\nvalues = 4\nthen = \"deny\"\n";

/// What masking so many tokens at once comes to, one request after another.
async fn mask(profile: &Path, asks: &[usize]) -> Vec<Option<Reason>> {
    let client = Client::from_profile(profile, Some("service")).unwrap();
    let value = || NewValue::new(DataClass::SSN, Plaintext::new("999-31-4102".to_owned()));
    let tokens = client.tokenize((0..5).map(|_| value()).collect()).await.unwrap();
    let tokens: Vec<_> = tokens.into_iter().map(Result::unwrap).collect();
    let mut reasons = Vec::new();
    for ask in asks {
        reasons.push(match client.mask(&tokens[..*ask]).await {
            Err(error) => Some(error.reason()),
            Ok(masked) => masked.into_iter().find_map(Result::err).map(|error| error.reason()),
        });
    }
    reasons
}

#[test]
fn who_reads_too_much_is_stopped_and_stays_stopped() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    site.edit("vault.toml", |text| text + SECTION);
    let vault = site.serve();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reached = Some(Reason::LimitReached);
    let reasons = runtime.block_on(mask(vault.profile(), &[5, 3, 2, 1, 1]));
    assert_eq!(reasons, [reached, None, reached, None, reached]);
    vault.kill();
    let vault = site.serve();
    assert_eq!(runtime.block_on(mask(vault.profile(), &[1])), [reached]);
    let query = |action| {
        let args = ["--tenant", "*", "--json", "audit", "query", "--limit", "100", "--action", action];
        vault.ctl("auditor", &args).ok().stdout
    };
    let (alarms, masks) = (query("alarm"), query("mask"));
    assert_eq!(alarms.matches("limit_reached").count(), 1, "{alarms}");
    assert_eq!(alarms.matches("first_seen_tenant").count(), 1, "{alarms}");
    assert_eq!(masks.matches("\"bulk\"").count(), 4, "{masks}");
}
