//! The `vault-server` command; all of it is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vault_mem::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::SYSTEM;

fn main() -> ExitCode {
    // First thing: no core file, no debugger, and what it starts inherits that.
    if let Err(error) = vault_mem::harden() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    vault_server::app::cli::main()
}
