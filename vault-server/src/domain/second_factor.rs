//! What a second factor is asked for.

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident $number:literal $words:literal;)*) => {
        /// What a second factor is asked for. One that was given for another is good for nothing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum SecondFactorAction {
            $($(#[$doc])* $variant,)*
        }

        impl SecondFactorAction {
            /// All of them.
            pub const ALL: &[SecondFactorAction] = &[$(SecondFactorAction::$variant),*];

            /// In words, for who touches the key. They are signed: change none.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }

            /// The number at rest. Never change one.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number),* }
            }

            /// From its number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

actions! {
    /// A grant of break-glass is asked for.
    GrantRequest 1 "ask for a grant of break-glass";
    /// One is approved.
    GrantApprove 2 "approve a grant of break-glass";
    /// One is denied.
    GrantDeny 3 "deny a grant of break-glass";
    /// The owner of a new security key shows that it has it.
    KeyConfirm 4 "confirm that this new security key is yours";
    /// Somebody else approves a destruction of keys.
    JobApprove 5 "approve a destruction of keys";
    /// To approve a change of principals.
    PrincipalChangeApprove 6 "approve a change of principals";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_comes_back_from_its_number_and_has_words_of_its_own() {
        let words: std::collections::BTreeSet<_> =
            SecondFactorAction::ALL.iter().map(|action| action.words()).collect();
        assert_eq!(words.len(), SecondFactorAction::ALL.len());
        for action in SecondFactorAction::ALL {
            assert_eq!(SecondFactorAction::from_number(action.number()), Some(*action));
        }
        assert_eq!(SecondFactorAction::from_number(0), None);
        assert_eq!(SecondFactorAction::from_number(7), None);
    }
}
