//! The wire API of phi-vault, generated from the `.proto` files beside this crate, and nothing else.
//!
//! The `.proto` files in `vault/v1` are the documentation of the API.
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

/// Package `vault.v1`.
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
