use super::*;
use crate::domain::{ClassName, JobBudget, KeyVersion, Plaintext};
use crate::store::{Change, Write};
use crate::vault::testing::Rig;
use crate::vault::{NewValue, Note};

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

fn asked(kind: JobKind, key: Option<KeyId>) -> JobAsked {
    JobAsked { kind, key, budget: JobBudget::default() }
}

impl Rig {
    /// With a value of the tenant, and the keys that come with it.
    async fn with_a_value() -> Self {
        let rig = Self::new().await;
        let value = NewValue {
            class: ClassName::parse("email").unwrap(),
            value: Plaintext::from_utf8(b"a@example.org".to_vec()).unwrap(),
            subject: None,
        };
        rig.vault.tokenize(&rig.cx("app").await, "demo", Ok(vec![Ok(value)]), Ok(None)).await.unwrap();
        rig
    }

    async fn key(&self, purpose: KeyPurpose) -> KeyRecord {
        self.store.keys(Some(&demo()), purpose).await.unwrap().remove(0)
    }

    async fn write_key(&self, write: Write) {
        self.store.commit(Change { writes: vec![write], entries: Vec::new() }).await.unwrap();
    }

    async fn bring_to(&self, state: KeyState) {
        let key = self.key(KeyPurpose::Data).await;
        self.write_key(Write::ReplaceKey(KeyRecord { state, revision: key.revision + 1, ..key })).await;
    }

    /// What a preview says of a job, which is what beginning it comes to.
    async fn refused(&self, tenant: &str, kind: JobKind, key: Option<KeyId>) -> Option<Problem> {
        let boss = self.cx("boss").await;
        let preview = self.vault.preview_job(&boss, tenant, Ok(asked(kind, key))).await.unwrap();
        if let Some(problem) = &preview.refused {
            let begun = self.vault.start_job(&boss, tenant, Ok(asked(kind, key)), Ok(Note::default())).await;
            assert_eq!(begun.err().map(|refused| refused.problem).as_ref(), Some(problem));
        }
        preview.refused
    }
}

#[tokio::test]
async fn a_job_of_one_version_is_for_old_data_keys_and_one_that_destroys_for_unused_ones() {
    use JobKind::{Destroy, Reencrypt};
    let rig = Rig::with_a_value().await;
    let (data, index) = (rig.key(KeyPurpose::Data).await.id, rig.key(KeyPurpose::Index).await.id);
    let unknown = KeyId::from_bytes([9; 16]);
    for kind in [Reencrypt, Destroy] {
        assert_eq!(rig.refused("demo", kind, Some(unknown)).await, Some(Problem::NotFound), "{kind:?}");
        assert_eq!(rig.refused("demo", kind, Some(index)).await, Some(Problem::KeyState), "{kind:?}");
        assert_eq!(rig.refused("demo", kind, Some(data)).await, Some(Problem::KeyActive), "{kind:?}");
    }
    for state in [KeyState::Retired, KeyState::Compromised] {
        rig.bring_to(state).await;
        assert_eq!(rig.refused("demo", Reencrypt, Some(data)).await, None, "{state:?}");
        assert_eq!(rig.refused("demo", Destroy, Some(data)).await, Some(Problem::KeyInUse), "{state:?}");
    }
    let old = rig.key(KeyPurpose::Data).await;
    let unused = KeyRecord { id: unknown, version: KeyVersion(old.version.0 + 1), revision: 0, ..old };
    rig.write_key(Write::InsertKey(unused)).await;
    assert_eq!(rig.refused("demo", Destroy, Some(unknown)).await, None);
    rig.bring_to(KeyState::Destroyed).await;
    for kind in [Reencrypt, Destroy] {
        assert_eq!(rig.refused("demo", kind, Some(data)).await, Some(Problem::KeyDestroyed), "{kind:?}");
    }
}

#[tokio::test]
async fn what_there_is_to_do_is_counted_and_a_tenant_without_keys_is_not_found() {
    let rig = Rig::with_a_value().await;
    let root = rig.cx("root").await;
    let none = rig.vault.preview_job(&root, "nobody", Ok(asked(JobKind::Reencrypt, None))).await.unwrap();
    assert_eq!(none.refused, Some(Problem::NotFound));
    let boss = rig.cx("boss").await;
    let preview = async |kind| rig.vault.preview_job(&boss, "demo", Ok(asked(kind, None))).await.unwrap();
    let nothing = preview(JobKind::Reencrypt).await;
    assert_eq!((nothing.items, nothing.bytes, nothing.refused), (0, 0, None), "all is under the active key");
    assert_eq!(preview(JobKind::Shred).await.items, 2);
    rig.bring_to(KeyState::Retired).await;
    let one = preview(JobKind::Reencrypt).await;
    assert!(one.items == 1 && one.bytes > 13 && one.kms_calls == 2, "{one:?}");
}

#[tokio::test]
async fn a_preview_is_of_the_job_with_its_bounds_and_of_what_is_under_way() {
    let rig = Rig::with_a_value().await;
    rig.bring_to(KeyState::Retired).await;
    let boss = rig.cx("boss").await;
    let preview = async |bytes| {
        let budget = JobBudget { bytes, kms_calls: 0 };
        let asked = JobAsked { budget, ..asked(JobKind::Reencrypt, None) };
        rig.vault.preview_job(&boss, "demo", Ok(asked)).await.unwrap().refused
    };
    assert_eq!(preview(1 << 17).await, None);
    let begun = rig.vault.start_job(&boss, "demo", Ok(asked(JobKind::Reencrypt, None)), Ok(Note::default()));
    begun.await.unwrap();
    assert_eq!(preview(0).await, None, "the same again is the one under way");
    assert_eq!(preview(1 << 17).await, Some(Problem::JobUnderWay));
}
