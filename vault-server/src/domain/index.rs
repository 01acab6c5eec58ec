//! Keyed hashes that stand for values and people: equal for equal inputs of one tenant, meaningless without its key.

use crate::domain::KeyVersion;

macro_rules! keyed_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Bytes: `index key version(4, big-endian) | MAC(16)`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            /// The version of the tenant's index key that made it.
            pub version: KeyVersion,
            /// The first 128 bits of the MAC.
            pub mac: [u8; 16],
        }

        impl $name {
            /// Length of the byte form.
            pub const LEN: usize = 20;

            /// The byte form.
            pub fn to_bytes(self) -> [u8; Self::LEN] {
                let mut bytes = [0; Self::LEN];
                bytes[..4].copy_from_slice(&self.version.0.to_be_bytes());
                bytes[4..].copy_from_slice(&self.mac);
                bytes
            }

            /// From the byte form.
            pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
                let [a, b, c, d, mac @ ..] = bytes;
                Self { version: KeyVersion(u32::from_be_bytes([a, b, c, d])), mac }
            }
        }
    };
}

keyed_hash! {
    /// Stands for a normalized value within a tenant and a class: what Find looks up.
    BlindIndex
}
keyed_hash! {
    /// Stands for a person within a tenant.
    SubjectRef
}
