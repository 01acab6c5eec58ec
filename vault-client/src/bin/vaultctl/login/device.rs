//! The device authorization grant (RFC 8628): a code is shown here, and typed in at the identity provider in a browser.

use std::time::{Duration, Instant};

use serde::Deserialize;
use vault_client::Reason;
use vault_client::profile::ProfileLogin;
use vault_client::session::AccessToken;
use zeroize::ZeroizeOnDrop;

use super::http::{Http, unavailable};
use crate::failure::{Exit, Failure};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Unless the provider says otherwise (section 3.2), and by how much more it says to slow down (section 3.5).
const INTERVAL: u64 = 5;
/// The longest that is waited for the person.
const LONGEST: u64 = 1800;

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Begun {
    device_code: DeviceCode,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// What gets the access token: a secret.
#[derive(Deserialize, ZeroizeOnDrop)]
struct DeviceCode(String);

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    error: Option<String>,
}

/// Asks the provider for an access token, which a person has to allow there.
pub(super) async fn access_token(login: &ProfileLogin) -> Result<AccessToken, Failure> {
    let http = Http::new(login.ca.as_deref())?;
    let uri = format!("{}/.well-known/openid-configuration", login.issuer.trim_end_matches('/'));
    let metadata: Metadata = http.get(&uri).await?;
    if metadata.issuer != login.issuer {
        return Err(unavailable(&uri, &"is about another issuer"));
    }
    let endpoint = metadata.device_authorization_endpoint.as_deref();
    let endpoint = endpoint.ok_or_else(|| unavailable(&uri, &"it has no device authorization (RFC 8628)"))?;
    let mut form = vec![("client_id", login.client_id.as_str()), ("scope", login.scope.as_str())];
    form.extend(login.resource.as_deref().map(|resource| ("resource", resource)));
    let begun: Begun = http.post(endpoint, &form).await?;
    show(&begun);
    poll(&http, login, &metadata.token_endpoint, &begun).await
}

fn show(begun: &Begun) {
    // What a provider says goes to a terminal: nothing in it may steer that.
    let plain = |text: &str| text.chars().filter(char::is_ascii_graphic).take(512).collect::<String>();
    eprintln!(
        "To log in, open  {}\nand type in      {}",
        plain(&begun.verification_uri),
        plain(&begun.user_code)
    );
    if let Some(whole) = &begun.verification_uri_complete {
        eprintln!("or open          {}", plain(whole));
    }
}

async fn poll(
    http: &Http,
    login: &ProfileLogin,
    endpoint: &str,
    begun: &Begun,
) -> Result<AccessToken, Failure> {
    let until = Instant::now() + Duration::from_secs(begun.expires_in.min(LONGEST));
    let mut interval = begun.interval.unwrap_or(INTERVAL).clamp(1, 60);
    let refused = |message: &str| Failure::new(Exit::Refused, Reason::SessionInvalid, message.to_owned());
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(interval)).await;
        // Exposed: to the provider, which made it.
        let form = [
            ("grant_type", GRANT),
            ("device_code", begun.device_code.0.as_str()),
            ("client_id", &login.client_id),
        ];
        let answer: Answer = http.post(endpoint, &form).await?;
        if let Some(token) = answer.access_token {
            return Ok(AccessToken::new(token));
        }
        match answer.error.as_deref() {
            Some("authorization_pending") => {}
            Some("slow_down") => interval += INTERVAL,
            Some("access_denied") => return Err(refused("the login was denied at the identity provider")),
            Some("expired_token") => break,
            _ => return Err(unavailable(endpoint, &"an answer that can't be read")),
        }
    }
    Err(refused("nobody typed the code in in time").hint("vaultctl login, once more"))
}
