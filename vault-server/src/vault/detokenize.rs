//! Gives values back.

use crate::access::Action;
use crate::audit::AuditAction;
use crate::crypto::{self, DataKey, Detokenize, OpenError, Warrant};
use crate::domain::{Plaintext, Purpose};

use super::{Context, Note, ParsedToken, Problem, Refused, Vault, denied_tokens, whole};

/// A value, and how many bytes of padding hide its length on the wire.
pub struct Opened {
    /// The value.
    pub value: Plaintext,
    /// Zero bytes to send beside it.
    pub padding: usize,
}

impl Vault {
    /// Gives the values of tokens back, item by item.
    pub async fn detokenize(
        &self,
        cx: &Context,
        asked_tenant: &str,
        tokens: Result<Vec<ParsedToken>, Refused>,
        purpose: Result<Purpose, Problem>,
        note: Result<Note, Refused>,
    ) -> Result<Vec<Result<Opened, Problem>>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Detokenize, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Detokenize, &tenant);
        let checked = || Ok((tokens?, purpose.map_err(|problem| problem.at("purpose"))?, note?));
        let (tokens, purpose, note) = match checked() {
            Ok(checked) => checked,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        draft.purpose = Some(purpose);
        draft.reason = note.reason;
        draft.ticket = note.ticket;
        let question = whole(Action::Detokenize, Some(purpose));
        self.allow(cx, &mut draft, &tenant, question, || denied_tokens(&tokens)).await?;
        let opening = self.opening::<Detokenize>(cx, &tenant, draft, tokens).await?;
        self.open_all(cx, &tenant, opening, |warrant, n, key| self.open_value(warrant, n, key)).await
    }

    /// Opens record `n` of a warrant.
    pub(super) fn open_value(
        &self,
        warrant: &Warrant<Detokenize>,
        n: usize,
        key: &DataKey,
    ) -> Result<Opened, OpenError> {
        let value = crypto::open(warrant, n, &self.parts.identity, key)?;
        let class = &warrant.records()[n].class;
        let len = value.expose().len(); // Exposed: its length alone, for padding.
        let padded = self.parts.classes.get(class).map_or(len, |class| class.padded_len(len));
        Ok(Opened { value, padding: padded - len })
    }
}
