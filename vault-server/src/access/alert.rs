//! What somebody must hear of at once. An alert is a row that is written in the same commit as what it tells, and is taken away
//! when it was delivered: so none is lost, and none holds anybody up.
//!
//! ```text
//! content  version(1)=1 | attempts(4) | not before(8) | JSON
//! ```
//!
//! The JSON is what receivers get, byte for byte. No PHI, no token: an alert leaves the vault.

use serde_json::{Map, Value, json};

use crate::domain::{
    AlertId, Entity, EntityKind, EntityName, EntityPlace, GrantId, PrincipalId, RequestId, TenantId,
    Timestamp,
};

const VERSION: u8 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident;)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AlertKind {
            $($(#[$doc])* $variant,)*
        }

        impl AlertKind {
            /// All of them.
            pub const ALL: &[AlertKind] = &[$(AlertKind::$variant),*];

            /// The name, for receivers and in the log. Never change one.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }
        }
    };
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// To be seen.
    Medium,
    /// To be looked at now.
    High,
    /// To wake somebody.
    Critical,
}

impl Severity {
    /// The name, for receivers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

kinds! {
    /// A grant of break-glass was asked for.
    GrantRequested "grant_requested" High;
    /// One is in force.
    GrantActive "grant_active" High;
    /// One is in force that nobody approved, since the tenant's policy asks for nobody.
    GrantUnapproved "grant_unapproved" Critical;
    /// A value was seen under one for the first time.
    GrantFirstUse "grant_first_use" High;
    /// One is over.
    GrantEnded "grant_ended" High;
    /// A review found one not justified, or wants it looked into.
    GrantQuestioned "grant_questioned" Critical;
    /// A honeytoken was touched.
    HoneytokenTouched "honeytoken_touched" Critical;
    /// A principal crossed a limit.
    LimitReached "limit_reached" High;
    /// A principal came at an unusual hour.
    UnusualHour "unusual_hour" Medium;
    /// A principal used its role at a tenant for the first time.
    FirstSeenTenant "first_seen_tenant" Medium;
    /// A security key was enrolled.
    SecurityKeyEnrolled "security_key_enrolled" High;
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its id, for receivers to know a repetition by.
    pub id: AlertId,
    /// What happened.
    pub kind: AlertKind,
    /// When.
    pub at: Timestamp,
    /// Whose data it is about.
    pub tenant: TenantId,
    /// Who did it.
    pub principal: PrincipalId,
    /// In which request: so it is found in the log.
    pub request: RequestId,
    /// About which grant.
    pub grant: Option<GrantId>,
    /// What else is worth saying. No PHI.
    pub details: Vec<(&'static str, String)>,
}

impl Alert {
    /// As it is kept until it was delivered. `None` if it is too large.
    pub fn entity(&self) -> Option<Entity> {
        let mut content = vec![VERSION];
        content.extend_from_slice(&0_u32.to_be_bytes());
        content.extend_from_slice(&self.at.0.to_be_bytes());
        content.extend_from_slice(self.json().to_string().as_bytes());
        let place = EntityPlace {
            kind: EntityKind::Alert,
            tenant: Some(self.tenant.clone()),
            name: EntityName::new(self.id.as_bytes())?,
        };
        (content.len() <= crate::domain::MAX_ENTITY).then_some(Entity { place, revision: 0, content })
    }

    fn json(&self) -> Value {
        let details: Map<_, _> = self
            .details
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        json!({
            "id": self.id.to_string(),
            "kind": self.kind.as_str(),
            "severity": self.kind.severity().as_str(),
            "time_us": self.at.0,
            "tenant": self.tenant.as_str(),
            "principal": self.principal.as_str(),
            "request_id": self.request.to_string(),
            "grant": self.grant.map(|grant| grant.to_string()),
            "details": details,
        })
    }
}
