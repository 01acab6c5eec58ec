//! Limits of principals, as use cases meet them: after policy, before the entry of what is allowed.

use std::time::Duration;

use tokio::time::timeout;

use crate::access::{Action, Crossing, LimitError, Use};
use crate::audit::{AuditAction, Beside, Draft, Item, LogError, Outcome};
use crate::domain::TenantId;
use crate::store::Write;

use super::watched::attribution;
use super::{Context, Problem, Refused, Vault};

/// How long it may take to find out.
const PATIENCE: Duration = Duration::from_secs(2);

impl Vault {
    /// Counts what a request is about to give, and refuses it if that is too much. A refusal is in the log.
    pub(super) async fn within_limits(
        &self,
        cx: &Context,
        tenant: &TenantId,
        action: Action,
        draft: &Draft,
        items: &[Item],
    ) -> Result<(), Refused> {
        if self.parts.usage.is_empty() {
            return Ok(());
        }
        let given = items.iter().filter(|item| item.outcome == Outcome::Ok && item.token.is_some());
        let values: Vec<_> = given.filter_map(|item| Some((item.class.clone()?, item.subject))).collect();
        let used = Use { caller: &cx.caller, tenant, action, values: &values };
        let crossings = match timeout(PATIENCE, self.parts.usage.spend(&used)).await {
            Ok(crossings) => crossings?,
            Err(_) => return Err(Problem::StoreUnavailable.whole()),
        };
        for crossing in &crossings {
            Box::pin(self.tell_crossing(cx, tenant, draft.action, crossing)).await?;
        }
        let denied = crossings.iter().find_map(|crossing| Some((crossing.rule, crossing.denied?)));
        let Some((limit, again)) = denied else { return Ok(()) };
        let deny = |item: &Item| match item.outcome {
            Outcome::Ok => Item { outcome: Outcome::Denied, ..item.clone() },
            _ => item.clone(),
        };
        let items = items.iter().map(deny).collect();
        let refused = Problem::LimitReached { limit, again }.whole();
        Err(self.log_refusal_watched(cx, draft.clone(), items, refused).await)
    }

    /// Raises the alert, once on all instances.
    async fn tell_crossing(
        &self,
        cx: &Context,
        tenant: &TenantId,
        action: AuditAction,
        crossing: &Crossing,
    ) -> Result<(), Refused> {
        if self.parts.usage.is_told(crossing).await? {
            return Ok(());
        }
        let mut details = attribution(cx, action);
        if !crossing.rule.is_empty() {
            details.push(("rule", crossing.rule.to_owned()));
        }
        let mut alarm = cx.draft(AuditAction::Alarm, tenant);
        alarm.details.push(("alarm", crossing.kind.as_str().to_owned()));
        alarm.details.extend(details.iter().filter(|(name, _)| ["action", "rule"].contains(name)).cloned());
        let writes = vec![
            Write::PutEntity(crossing.told.clone()),
            self.alert(cx, crossing.kind, tenant.clone(), None, details)?,
        ];
        match self.parts.log.commit_with(alarm, Vec::new(), Beside::from(writes)).await {
            // Told here, or by somebody who was faster.
            Ok(_) | Err(LogError::Conflict { write: 0 }) => {
                self.parts.usage.has_told(crossing);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl From<LimitError> for Refused {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Store(error) => error.into(),
            LimitError::Contended => Problem::Overloaded.whole(),
            LimitError::Corrupt => {
                tracing::error!("a counter's row is not what was written");
                Problem::Internal.whole()
            }
        }
    }
}
