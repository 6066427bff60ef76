//! The one binary: flags → config → app → exit code.

/// musl's own allocator is an order of magnitude slower with two threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let code = sandboxd::cli::run(std::env::args_os());
    std::process::exit(code as i32);
}
