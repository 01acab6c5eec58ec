//! Shows masked forms: as much as a console may show.

use crate::access::Action;
use crate::audit::AuditAction;
use crate::crypto::{self, Mask, OpenError};
use crate::domain::Masked;

use super::{Context, ParsedToken, Problem, Refused, Vault, denied_tokens, whole};

impl Vault {
    /// Gives the masked forms of tokens' values, item by item. No plain value leaves `crypto` for it.
    pub async fn mask(
        &self,
        cx: &Context,
        asked_tenant: &str,
        tokens: Result<Vec<ParsedToken>, Refused>,
    ) -> Result<Vec<Result<Masked, Problem>>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Mask, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Mask, &tenant);
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let question = whole(Action::Mask, None);
        self.allow(cx, &mut draft, &tenant, question, || denied_tokens(&tokens)).await?;
        let view = self.parts.access.mask_view(&cx.caller, &tenant);
        let opening = self.opening::<Mask>(cx, &tenant, draft, tokens).await?;
        let identity = &self.parts.identity;
        self.open_all(cx, &tenant, opening, |warrant, n, key| {
            // A class that is configured no longer has no mask: fail closed.
            let class = self.parts.classes.get(&warrant.records()[n].class).ok_or(OpenError::Malformed)?;
            crypto::mask(warrant, n, identity, key, class, view)
        })
        .await
    }
}
