//! The program. Everything is in the library.

/// The system's allocator keeps far more memory in a server with many threads and small objects.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    hearth_server::cli::main()
}
