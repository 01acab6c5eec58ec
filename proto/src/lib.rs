//! The wire API of phi-vault, generated from the `.proto` files beside this crate, and the codec that its messages go by.
//!
//! The `.proto` files in `vault/v1` are the documentation of the API.
#![forbid(unsafe_code)]

pub mod codec;

/// Package `vault.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("vault.v1");

    /// Messages that hold PHI print their name alone.
    macro_rules! silent_debug {
        ($($message:ty),*) => {
            $(impl std::fmt::Debug for $message {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(concat!(stringify!($message), "(..)"))
                }
            })*
        };
    }

    silent_debug!(Value, SubjectId, AuditQueryRequest, MaskResult, mask_result::Outcome, OpenSessionResponse);
}

/// The file descriptors, encoded, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vault.bin"));
