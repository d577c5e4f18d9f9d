//! The gateway's program: hands its command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::main_with(std::env::args_os())
}
