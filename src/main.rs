//! The one binary: a role per subcommand.

fn main() -> std::process::ExitCode {
    tolom::cli::main()
}
