//! A tenant's keys, open.

use vault_mem::LockedKey;

use crate::domain::{KeyId, KeyVersion, TenantId};

macro_rules! tenant_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// No `Clone`, no `Debug`; wiped when dropped.
        pub struct $name {
            id: KeyId,
            version: KeyVersion,
            tenant: TenantId,
            key: LockedKey,
        }

        impl $name {
            /// A key and whose it is.
            pub fn new(id: KeyId, version: KeyVersion, tenant: TenantId, key: LockedKey) -> Self {
                Self { id, version, tenant, key }
            }

            /// Its id.
            pub fn id(&self) -> KeyId {
                self.id
            }

            /// Which version of the tenant's keys of this purpose.
            pub fn version(&self) -> KeyVersion {
                self.version
            }

            /// Whose it is.
            pub fn tenant(&self) -> &TenantId {
                &self.tenant
            }

            /// The key's bytes. Say at each use why they are exposed: `// Exposed: ...`.
            pub(super) fn expose(&self) -> &[u8; 32] {
                self.key.expose()
            }
        }
    };
}

tenant_key! {
    /// The root of the keys of a tenant's records.
    DataKey
}
tenant_key! {
    /// Makes a tenant's blind index and subject references.
    IndexKey
}
