//! The program: calls [`postern::cli::run`] and exits with what it says.

use std::process::ExitCode;

/// The best allocator of those measured, above all for the memory of an idle connection.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    postern::cli::run()
}
