//! The authority's program: hands its command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    authority::main_with(std::env::args_os())
}
