//! The testnet's program: hands its command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    testnet::main_with(std::env::args_os())
}
