//! The `lora-tool` command. What it can do is in the library; here is how it is asked and how it
//! answers.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    let terminal = cli.terminal();
    match cli.run(&terminal) {
        Ok(cli::Answer::Yes) => ExitCode::from(0),
        Ok(cli::Answer::No) => ExitCode::from(1),
        Err(error) if error.is_broken_pipe() => ExitCode::from(0),
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(2)
        }
    }
}
