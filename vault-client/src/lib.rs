//! A typed client of phi-vault: protected health information goes in, tokens come out.
//!
//! # Start
//!
//! A [profile] says where the vault is and which certificate to present. `vault-server dev` writes one. From there:
//!
//! ```no_run
//! use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, SubjectId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Once for a program; clones are cheap and share connections.
//! let vault = Client::from_profile("/etc/billing/vault.toml", None)?;
//!
//! // At the door: the value goes in, keep the token only.
//! let ssn = Plaintext::new("999-12-3456".to_owned());
//! let patient = SubjectId::new("patient-1".to_owned())?;
//! let token = vault.tokenize_one(NewValue::new(DataClass::SSN, ssn).about(patient)).await?;
//! println!("{token}"); // phi_dev_...: means nothing, safe to store and to log
//!
//! // To be shown:
//! let masked = vault.mask_one(&token).await?; // ***-**-3456
//!
//! // At the point of use, with the reason why:
//! let ssn = vault.detokenize_one(&token, Purpose::Payment, &DetokenizeOptions::default()).await?;
//! send_claim(ssn.expose()); // wiped when `ssn` is dropped
//!
//! // By value, without a detokenize:
//! let value = Plaintext::new("999 12 3456".to_owned());
//! let found = vault.find(&DataClass::SSN, vec![value], 0).await?.remove(0)?;
//! assert!(found.tokens.contains(&token));
//!
//! // And away with it:
//! vault.erase_tokens(&[token], &Default::default()).await?.remove(0)?;
//! # Ok(()) }
//! # fn send_claim(_: &str) {}
//! ```
//!
//! # Many at once
//!
//! * [`Client::tokenize`], [`Client::detokenize`], [`Client::mask`], [`Client::find`], [`Client::describe`] and
//!   [`Client::erase_tokens`] take batches and answer item by item, in order: `results[i]` belongs to `items[i]`.
//!   One bad item never fails or hides the others: look at each. Batches of any size may be given; they are cut
//!   into messages that the vault takes.
//! * [`Client::tokenize_one`], [`Client::detokenize_one`] and [`Client::mask_one`] may be called from thousands of
//!   tasks at once: calls made while two requests of them are under way travel together in the next.
//! * [`Client::tokenize_stream`] and [`Client::detokenize_stream`] are for bulk: batch after batch over one stream,
//!   as fast as the vault takes them.
//! * [`bulk`] replaces the PHI of whole files; `vaultctl import` and `export` are made of it.
//! * [`Client::audit_query`], [`Client::audit_logs`], [`Client::audit_checkpoint`] and [`Client::audit_entries`] read
//!   the vault's logs.
//! * [`second_factor`] has people's security keys, and what they sign.
//! * [`keys`] has what rotators and admins need: versions of keys, and the jobs that work on all that they seal.
//! * [`principals`] has who may call, for admins; [`policy`] what the policies make of it.
//! * [`break_glass`] has grants of plain values in an emergency.
//! * [`session`] has sessions of people who come by an identity provider.
//!
//! # When things go wrong
//!
//! [`Error`] is a call that failed as a whole, [`ItemError`] one item. Both have a stable [`Reason`], a gRPC
//! [`Code`], [`is_retryable`](Error::is_retryable) and no value. Each call has a deadline (10 seconds unless
//! [set](ClientBuilder::timeout)), which the vault is told, and is repeated within it when the vault is not
//! available: with jitter, on another endpoint if there is one, within a budget, and only because it is safe (each
//! tokenize carries an idempotency key; erasing twice is erasing once; see [`keys`] for its one exception). After a [`Reason::Deadline`] a tokenize or
//! an erase may have been done or not.
//!
//! # What it takes care of
//!
//! * TLS 1.3 with a client certificate. Changed certificate files are used without a restart.
//! * Requests are padded to multiples of 64 bytes, so that packet sizes don't tell one value from another.
//! * [`Plaintext`], [`SubjectId`] and [`Masked`] don't print, clone or serialize themselves, and are wiped when
//!   dropped. What the transport buffers on the way is freed but not wiped by this library: a program that minds
//!   installs `vault_mem::WipingAllocator`, as `vaultctl` does.
#![forbid(unsafe_code)]

pub mod audit;
pub mod break_glass;
pub mod bulk;
mod class;
mod client;
mod describe;
mod error;
pub mod honeytokens;
pub mod keys;
pub mod policy;
pub mod principals;
pub mod profile;
mod retry;
pub mod second_factor;
pub mod session;
mod token;
mod transport;
mod value;
mod wire;

pub use class::{DataClass, InvalidClass};
pub use client::{
    BatchResult, Client, ClientBuilder, DetokenizeOptions, EraseOptions, Erased, Found, TokenizeBatch,
    TokenizeOptions,
};
pub use describe::{Description, State};
pub use error::{Error, ItemError, Reason};
pub use retry::RetryPolicy;
pub use token::Token;
pub use tonic::Code;
pub use value::{InvalidSubjectId, Masked, NewValue, NotUtf8, Plaintext, SubjectId};
pub use vault_format::environment::{Environment, InvalidEnvironment};
pub use vault_format::purpose::Purpose;
