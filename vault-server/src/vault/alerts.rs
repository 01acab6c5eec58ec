//! Alerts, as use cases raise them.

use crate::access::{Alert, AlertKind};
use crate::domain::{AlertId, GrantId, PrincipalId, RequestId, TenantId};
use crate::store::Write;

use super::{Context, Problem, Refused, Vault};

impl Vault {
    /// What to write beside what the alert tells, in the same commit.
    pub(super) fn alert(
        &self,
        cx: &Context,
        kind: AlertKind,
        tenant: impl Into<Option<TenantId>>,
        grant: Option<GrantId>,
        details: Vec<(&'static str, String)>,
    ) -> Result<Write, Refused> {
        let who = (cx.request, cx.caller.principal.id.clone());
        self.alert_of(who, kind, tenant, grant, details)
    }

    /// The same of something that nobody asked for just now: in which entry it is found, and whom it is about.
    pub(super) fn alert_of(
        &self,
        (request, principal): (RequestId, PrincipalId),
        kind: AlertKind,
        tenant: impl Into<Option<TenantId>>,
        grant: Option<GrantId>,
        details: Vec<(&'static str, String)>,
    ) -> Result<Write, Refused> {
        let tenant = tenant.into();
        let alert = Alert {
            id: AlertId::random().map_err(|_| Problem::Internal.whole())?,
            kind,
            at: self.parts.clock.now(),
            tenant,
            principal,
            request,
            grant,
            details,
        };
        tracing::warn!(
            alert = kind.as_str(), severity = kind.severity().as_str(), tenant = ?alert.tenant,
            principal = %alert.principal, %request, "an alert"
        );
        alert.entity().map(Write::PutEntity).ok_or_else(|| Problem::Internal.whole())
    }
}
