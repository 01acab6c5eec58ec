//! Generates the Rust code from the .proto files with protox, so that no protoc has to be installed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "vault/v1/vault.proto",
        "vault/v1/audit.proto",
        "vault/v1/keys.proto",
        "vault/v1/second_factor.proto",
        "vault/v1/principals.proto",
        "vault/v1/break_glass.proto",
        "vault/v1/sessions.proto",
        "vault/v1/policy.proto",
        "vault/v1/honeytokens.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("vault.bin"), descriptors.encode_to_vec())?;
    // What holds PHI gets a Debug of its own in lib.rs, which tells nothing.
    tonic_prost_build::configure()
        .codec_path("vault_codec::SizedCodec")
        .bytes(".")
        // Sorted, so that a log entry has one encoding.
        .btree_map(".")
        .skip_debug([
            ".vault.v1.Value",
            ".vault.v1.SubjectId",
            ".vault.v1.AuditQueryRequest",
            ".vault.v1.MaskResult",
            ".vault.v1.OpenSessionResponse",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
