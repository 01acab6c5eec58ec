//! The `vault-server` command; all of it is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;
use vault_mem::WipingAllocator;

/// Over mimalloc: the C library's allocator takes memory from the kernel page by page in every thread but the first, and
/// each time all threads wait.
#[global_allocator]
static ALLOCATOR: WipingAllocator<MiMalloc> = WipingAllocator::new(MiMalloc);

fn main() -> ExitCode {
    vault_mem::keep_large_pages();
    // Before anything else is done: no core file, no debugger, and what it starts inherits that.
    if let Err(error) = vault_mem::harden() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    vault_server::app::cli::main()
}
