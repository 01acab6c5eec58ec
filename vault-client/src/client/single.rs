//! Single calls. Those made at the same time share a request; see [`batcher`](super::batcher).

use std::sync::Arc;

use vault_format::purpose::Purpose;

use super::Client;
use super::batcher::Batcher;
use super::values::DetokenizeOptions;
use crate::error::{Error, ItemError};
use crate::token::Token;
use crate::value::{Masked, NewValue, Plaintext};

type Tenant = Arc<str>;

/// The batchers of one client, each grouped by what a request has once.
pub(super) struct Singles {
    tokenize: Batcher<Tenant, NewValue, Token>,
    detokenize: Batcher<(Tenant, Purpose, DetokenizeOptions), Token, Plaintext>,
    mask: Batcher<Tenant, Token, Masked>,
}

impl Singles {
    pub(super) fn new() -> Self {
        Self { tokenize: Batcher::new(), detokenize: Batcher::new(), mask: Batcher::new() }
    }
}

impl Client {
    /// [`Client::tokenize`] for one value. Calls made at the same time share one request.
    pub async fn tokenize_one(&self, value: NewValue) -> Result<Token, Error> {
        let client = self.clone();
        let run = move |values| {
            let client = client.clone();
            async move { client.tokenize(values).await }
        };
        self.in_time(self.shared.singles.tokenize.submit(Arc::clone(&self.tenant), value, run)).await
    }

    /// [`Client::detokenize`] for one token. Calls made at the same time with the same purpose and options share
    /// one request, and so one entry of the log.
    pub async fn detokenize_one(
        &self,
        token: &Token,
        purpose: Purpose,
        options: &DetokenizeOptions,
    ) -> Result<Plaintext, Error> {
        let key = (Arc::clone(&self.tenant), purpose, options.clone());
        let (client, options) = (self.clone(), options.clone());
        let run = move |tokens: Vec<Token>| {
            let (client, options) = (client.clone(), options.clone());
            async move { client.detokenize(&tokens, purpose, &options).await }
        };
        self.in_time(self.shared.singles.detokenize.submit(key, token.clone(), run)).await
    }

    /// [`Client::mask`] for one token. Calls made at the same time share one request.
    pub async fn mask_one(&self, token: &Token) -> Result<Masked, Error> {
        let client = self.clone();
        let run = move |tokens: Vec<Token>| {
            let client = client.clone();
            async move { client.mask(&tokens).await }
        };
        self.in_time(self.shared.singles.mask.submit(Arc::clone(&self.tenant), token.clone(), run)).await
    }

    /// The deadline counts from now, waiting for the batch before included.
    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<Result<T, ItemError>, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.shared.limits.timeout, call).await {
            Ok(outcome) => Ok(outcome??),
            Err(_) => Err(Error::deadline()),
        }
    }
}
