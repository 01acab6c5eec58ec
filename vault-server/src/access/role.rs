//! Roles: what a principal is for. What a role may do is the policies' business, not this file's.

use std::fmt;

macro_rules! roles {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// What a principal is for, within a tenant or all of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Role {
            $($(#[$doc])* $variant,)*
        }

        impl Role {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Role] = &[$(Role::$variant),*];

            /// The name, in the principals file and in policies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Role::$variant => $name),* }
            }

            /// Parses a name, exactly as written here.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Role::$variant),)* _ => None }
            }
        }
    };
}

roles! {
    /// A backend service: keeps values and gets them back at the point of use.
    Service "service";
    /// Support staff's console: masked values only.
    Console "console";
    /// An on-call engineer.
    OnCall "oncall";
    /// Approves what others ask for.
    Approver "approver";
    /// A key-rotation job: never sees a value.
    Rotator "rotator";
    /// Reads the log: never sees a value.
    Auditor "auditor";
    /// Runs the vault: never sees a value.
    Admin "admin";
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of roles, as bits: cheap to copy, to compare and to hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RoleSet(u8);

impl RoleSet {
    /// No role.
    pub const EMPTY: Self = Self(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `role` is one of them.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// The roles, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.iter().copied().filter(move |role| self.contains(*role))
    }
}

impl<'a> Extend<&'a Role> for RoleSet {
    fn extend<I: IntoIterator<Item = &'a Role>>(&mut self, roles: I) {
        for role in roles {
            self.0 |= 1 << *role as u8;
        }
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | 1 << role as u8))
    }
}

impl fmt::Debug for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_parses_to_itself_and_nothing_else_does() {
        for &role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        for bad in ["", "Admin", "admin ", "root", "*"] {
            assert_eq!(Role::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_no_more() {
        for &role in Role::ALL {
            let set = RoleSet::from_iter([role]);
            assert_eq!(set.iter().collect::<Vec<_>>(), [role]);
            assert_eq!(RoleSet::from_iter([role, role]), set, "twice is once");
            let mut twice = set;
            twice.extend([&role]);
            assert_eq!(twice, set);
        }
        assert!(RoleSet::EMPTY.is_empty());
        assert_eq!(format!("{:?}", RoleSet::from_iter([Role::Admin, Role::Service])), "{Service, Admin}");
        assert_eq!(Role::ALL.iter().copied().collect::<RoleSet>().iter().count(), Role::ALL.len());
    }
}
