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
    /// A principal was provisioned, changed, disabled or enabled.
    PrincipalChanged "principal_changed" High;
    /// Somebody asked for a change that makes more of somebody: it waits for another person.
    PrincipalChangeAsked "principal_change_asked" High;
    /// A security key was enrolled.
    SecurityKeyEnrolled "security_key_enrolled" High;
    /// A security key signed with a counter that is not above its last: somebody has another one like it.
    SecurityKeyCloned "security_key_cloned" Critical;
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
    /// Whose data it is about; `None`: the vault as a whole.
    pub tenant: Option<TenantId>,
    /// Who did it.
    pub principal: PrincipalId,
    /// In which request: so it is found in the log.
    pub request: RequestId,
    /// About which grant.
    pub grant: Option<GrantId>,
    /// What else is worth saying. No PHI.
    pub details: Vec<(&'static str, String)>,
}

/// An alert as it waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingAlert {
    place: EntityPlace,
    revision: u64,
    attempts: u32,
    /// Not to be tried before.
    pub not_before: Timestamp,
    /// What receivers get.
    pub body: Vec<u8>,
    /// Its id: receivers know a repetition by it.
    pub id: AlertId,
    /// What happened, by name: it may be of a newer version, of a kind that is not known here.
    pub kind: String,
    /// When.
    pub at: Timestamp,
}

/// Why a row is not read as an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableAlert {
    /// Another version of the software wrote it: it is left to that.
    #[error("an alert of another version of the software")]
    Version,
    /// It is not what was written.
    #[error("an alert's row is not what was written")]
    Corrupt,
}

/// What is read of the JSON here.
#[derive(serde::Deserialize)]
struct Told {
    id: String,
    kind: String,
    time_us: u64,
}

impl WaitingAlert {
    /// From its row.
    pub fn read(entity: &Entity) -> Result<Self, UnreadableAlert> {
        let corrupt = UnreadableAlert::Corrupt;
        let (version, rest) = entity.content.split_first().ok_or(corrupt)?;
        if *version != VERSION {
            return Err(UnreadableAlert::Version);
        }
        let (attempts, rest) = rest.split_first_chunk().ok_or(corrupt)?;
        let (not_before, body) = rest.split_first_chunk().ok_or(corrupt)?;
        let told: Told = serde_json::from_slice(body).map_err(|_| corrupt)?;
        let id = AlertId::parse(&told.id).map_err(|_| corrupt)?;
        // Under another's name it would be delivered as that. The name and the kind go into the log.
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let well_named = told.kind.len() <= 64 && told.kind.chars().all(is_name);
        if entity.place.name.as_bytes() != id.as_bytes() || !well_named {
            return Err(corrupt);
        }
        Ok(Self {
            place: entity.place.clone(),
            revision: entity.revision,
            attempts: u32::from_be_bytes(*attempts),
            not_before: Timestamp(u64::from_be_bytes(*not_before)),
            body: body.to_vec(),
            id,
            kind: told.kind,
            at: Timestamp(told.time_us),
        })
    }

    /// Where it stands.
    pub fn place(&self) -> &EntityPlace {
        &self.place
    }

    /// The revision of its row.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How often its delivery failed.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Its row after one more delivery that failed.
    pub fn after_failure(&self, not_before: Timestamp) -> Entity {
        let content = content(self.attempts.saturating_add(1), not_before, &self.body);
        Entity { place: self.place.clone(), revision: self.revision + 1, content }
    }
}

fn content(attempts: u32, not_before: Timestamp, body: &[u8]) -> Vec<u8> {
    let mut content = vec![VERSION];
    content.extend_from_slice(&attempts.to_be_bytes());
    content.extend_from_slice(&not_before.0.to_be_bytes());
    content.extend_from_slice(body);
    content
}

impl Alert {
    /// As it is kept until it was delivered. `None` if it is too large.
    pub fn entity(&self) -> Option<Entity> {
        let content = content(0, self.at, self.json().to_string().as_bytes());
        let place = EntityPlace {
            kind: EntityKind::Alert,
            tenant: self.tenant.clone(),
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
            "tenant": self.tenant.as_ref().map_or("*", TenantId::as_str),
            "principal": self.principal.as_str(),
            "request_id": self.request.to_string(),
            "grant": self.grant.map(|grant| grant.to_string()),
            "details": details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as they were written: they must open for ever.
    const VECTORS: &str = include_str!("vectors/alert.txt");

    fn alert() -> Alert {
        Alert {
            id: AlertId::from_bytes([0x11; 16]),
            kind: AlertKind::HoneytokenTouched,
            at: Timestamp(1_760_000_000_000_000),
            tenant: Some(TenantId::parse("st-mary").unwrap()),
            principal: PrincipalId::parse("ann").unwrap(),
            request: RequestId::from_bytes([0x22; 16]),
            grant: Some(GrantId::from_bytes([0x33; 16])),
            details: vec![("action", "detokenize".to_owned()), ("count", "2".to_owned())],
        }
    }

    fn vectors() -> Vec<Vec<u8>> {
        VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| hex::decode(line).unwrap()).collect()
    }

    #[test]
    fn rows_are_as_they_always_were() {
        let entity = alert().entity().unwrap();
        let waiting = WaitingAlert::read(&entity).unwrap();
        let tried = waiting.after_failure(Timestamp(1_760_000_000_000_009));
        assert_eq!([entity.content.clone(), tried.content.clone()], vectors()[..]);
        assert_eq!((tried.revision, tried.place.clone()), (1, entity.place));
        let tried = WaitingAlert::read(&tried).unwrap();
        assert_eq!((tried.attempts(), tried.not_before), (1, Timestamp(1_760_000_000_000_009)));
        assert_eq!((waiting.attempts(), waiting.revision(), tried.revision()), (0, 0, 1));
        assert_eq!((tried.id, tried.kind.as_str(), tried.at), (alert().id, "honeytoken_touched", alert().at));
        assert_eq!(tried.body, waiting.body);
    }

    #[test]
    fn a_row_that_is_another_or_torn_is_told_from_one_of_another_version() {
        let entity = alert().entity().unwrap();
        let with = |content: Vec<u8>| WaitingAlert::read(&Entity { content, ..entity.clone() }).unwrap_err();
        for len in [0, 1, 12, 13, entity.content.len() - 1] {
            assert_eq!(with(entity.content[..len].to_vec()), UnreadableAlert::Corrupt, "{len}");
        }
        assert_eq!(with([&[2], &entity.content[1..]].concat()), UnreadableAlert::Version);
        // A kind of a newer version is delivered by its name; what can't be a name is none.
        let of_kind = |kind: &str| {
            let (head, body) = entity.content.split_at(13);
            let body = std::str::from_utf8(body).unwrap().replace("honeytoken_touched", kind);
            let content = [head, body.as_bytes()].concat();
            WaitingAlert::read(&Entity { content, ..entity.clone() }).map(|read| read.kind)
        };
        assert_eq!(of_kind("newer_2"), Ok("newer_2".to_owned()));
        assert_eq!(of_kind(&"k".repeat(64)), Ok("k".repeat(64)));
        for bad in ["k".repeat(65), "Kind".to_owned(), "a b".to_owned(), "a-b".to_owned()] {
            assert_eq!(of_kind(&bad), Err(UnreadableAlert::Corrupt), "{bad}");
        }
        let place = EntityPlace { name: EntityName::new(&[0x12; 16]).unwrap(), ..entity.place.clone() };
        assert_eq!(WaitingAlert::read(&Entity { place, ..entity }), Err(UnreadableAlert::Corrupt));
    }
}
