//! The `lora-tool` command. What it can do is in the library; here is how it is asked and how it
//! answers.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    cli::open_many_files();
    cli::interruptible(move || {
        let session = cli.session();
        let outcome = cli.run(&session);
        if outcome.is_ok() {
            session.took();
        }
        let answer = match outcome {
            Ok(cli::Answer::Yes) => 0,
            Ok(cli::Answer::No) => 1,
            Ok(cli::Answer::Unknown) => 2,
            Err(error) if error.is_broken_pipe() => 0,
            Err(error) => {
                session.error(&error);
                cli::FAILED
            }
        };
        lora_tool::format::remote::release();
        answer
    })
}
