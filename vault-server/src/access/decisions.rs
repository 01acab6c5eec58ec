//! Verdicts that policy has given, kept for as long as the policies and the principals are the same: each
//! generation has decisions of its own, so a reload can't be answered out of an older one.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::access::Verdict;
use crate::access::question::Asked;

/// A busy vault asks (principals x tenants x classes x purposes) different questions, thousands at the most. Past
/// the bound all are dropped: a caller who asks for ever new ones costs evaluations, not memory.
const MAX_DECISIONS: usize = 16_384;

#[derive(Default)]
pub(super) struct Decisions(RwLock<HashMap<Asked, Verdict>>);

impl Decisions {
    /// The verdict on a question: a kept one, or else what `evaluate` says.
    pub(super) fn get_or_decide(&self, asked: Asked, evaluate: impl FnOnce(&Asked) -> Verdict) -> Verdict {
        if let Some(verdict) = self.0.read().get(&asked) {
            return verdict.clone();
        }
        // Outside of the lock. Two that ask at once both evaluate, and get the same.
        let verdict = evaluate(&asked);
        let mut decisions = self.0.write();
        if decisions.len() >= MAX_DECISIONS {
            decisions.clear();
        }
        decisions.insert(asked, verdict.clone());
        verdict
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Action, PrincipalKind, RoleSet, TenantScope};
    use crate::domain::{ClassName, PrincipalId};

    fn asked(class: usize) -> Asked {
        Asked {
            principal: PrincipalId::parse("a").unwrap(),
            kind: PrincipalKind::Service,
            roles: RoleSet::EMPTY,
            place: TenantScope::All,
            action: Action::Mask,
            class: Some(ClassName::parse(&format!("c{class}")).unwrap()),
            purpose: None,
            grant: None,
        }
    }

    #[test]
    fn a_question_is_evaluated_once() {
        let decisions = Decisions::default();
        let first = decisions.get_or_decide(asked(1), |_| Verdict::of_policy(true, vec!["p".into()]));
        let again = decisions.get_or_decide(asked(1), |_| panic!("evaluated twice"));
        assert_eq!(first, again);
    }

    #[test]
    fn a_flood_of_different_questions_is_bounded() {
        let decisions = Decisions::default();
        for class in 0..=MAX_DECISIONS {
            decisions.get_or_decide(asked(class), |_| Verdict::foreign());
            assert!(decisions.len() <= MAX_DECISIONS);
        }
        assert_eq!(decisions.len(), 1);
    }
}
