//! The one binary: flags → config → app → exit code; or the keeper above it.

/// musl's own allocator is an order of magnitude slower with two threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    if sandboxd::keeper::is_asked_for(&args) {
        std::process::exit(sandboxd::keeper::run(args)); // before anything else: it stays small
    }
    std::process::exit(sandboxd::cli::run(args) as i32);
}
