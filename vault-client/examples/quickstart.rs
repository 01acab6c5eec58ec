//! What a backend does with a vault: a value in, a token kept, a mask shown, the value back with a purpose, a search
//! by value, an erase.
//!
//! ```text
//! cargo run --example quickstart -- PROFILE [IDENTITY] < value
//! ```
//!
//! Without anything on standard input it uses a synthetic social security number.

use std::error::Error;
use std::io::{IsTerminal as _, Read as _, stdin};

use vault_client::{
    Client, DataClass, DetokenizeOptions, EraseOptions, NewValue, Plaintext, Purpose, SubjectId,
};

/// 999 is never assigned.
const SYNTHETIC: &str = "999-12-3456";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let profile = args.next().ok_or("usage: quickstart PROFILE [IDENTITY]")?;
    let identity = args.next();

    // Made once for a program. Clones share its connections; certificates are read again when they change.
    let vault = Client::from_profile(&profile, identity.as_deref())?;

    // In: the value goes to the vault, and only the token is kept.
    let value = read_value()?;
    let again = Plaintext::new(value.expose().to_owned());
    let patient = SubjectId::new("quickstart-patient".to_owned())?;
    let token = vault.tokenize_one(NewValue::new(DataClass::SSN, value).about(patient)).await?;
    println!("token       {token}");

    // Shown to people: the mask.
    match vault.mask_one(&token).await {
        Ok(masked) => println!("masked      {}", masked.expose()),
        Err(error) => println!("masked      {error}"),
    }

    // Back, at the point of use, with the reason why. It is wiped when it goes out of scope.
    let options = DetokenizeOptions { reason: "quickstart".to_owned(), ..DetokenizeOptions::default() };
    let value = vault.detokenize_one(&token, Purpose::Treatment, &options).await?;
    println!("came back   {}", if value.expose() == again.expose() { "the same" } else { "changed!" });

    // By value: without a detokenize.
    let found = vault.find(&DataClass::SSN, vec![again], 1_000).await?.remove(0)?;
    println!("found       {} token(s), ours {}", found.tokens.len(), found.tokens.contains(&token));

    // Batches answer item by item: one bad item does not hide the others.
    for known in vault.describe(std::slice::from_ref(&token)).await? {
        match known {
            Ok(known) => println!("described   class {}, {}", known.class, known.state.as_str()),
            Err(error) => println!("described   {error}"),
        }
    }

    // Gone.
    vault.erase_tokens(std::slice::from_ref(&token), &EraseOptions::default()).await?.remove(0)?;
    match vault.detokenize_one(&token, Purpose::Treatment, &options).await {
        Ok(_) => println!("erased      but still there!"),
        Err(error) => println!("erased      {}: {error}", error.reason()),
    }
    Ok(())
}

fn read_value() -> Result<Plaintext, Box<dyn Error>> {
    let mut text = String::new();
    if !stdin().is_terminal() {
        stdin().read_to_string(&mut text)?;
    }
    let text = text.trim_end_matches('\n');
    Ok(Plaintext::new(if text.is_empty() { SYNTHETIC } else { text }.to_owned()))
}
