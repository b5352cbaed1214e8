//! The one binary: a role per subcommand.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use rustix::process::{Resource, Rlimit, setrlimit};

/// Small blocks by the thousand, from all threads: the system's allocator takes a quarter of a loaded worker's time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Stack of every thread that does not ask for another, in bytes.
const STACK: &str = "RUST_MIN_STACK";
/// The broker's client reads a message's headers by recursion, on a thread of its own. A frame's worth of nested tables
/// (48 KiB, 7 bytes a level) overflows an ordinary stack, and that ends the process. Address space is set aside, memory only as it is used.
const ENOUGH: &str = "268435456";

fn main() -> ExitCode {
    // Only the environment of a process that begins says how large the stacks of its threads are.
    if std::env::var_os(STACK).is_none()
        && let Ok(this) = std::env::current_exe()
    {
        let error = std::process::Command::new(this).args(std::env::args_os().skip(1)).env(STACK, ENOUGH).exec();
        eprintln!("tolom: goes on with small stacks: {error}");
    }
    // A dump would hold cards, keys and passwords. Whatever this process starts inherits the limit.
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        eprintln!("tolom: core dumps cannot be forbidden: {error}");
        return ExitCode::FAILURE;
    }
    tolom::cli::main()
}
