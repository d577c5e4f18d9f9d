//! The mix node's program: hands its command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mix_node::main_with(std::env::args_os())
}
