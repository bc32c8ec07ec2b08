//! A directory to run commands in.

use std::path::{Path, PathBuf};

use super::lora_tool;

/// Removed with all that is in it when it goes out of scope.
pub struct Bench(tempfile::TempDir);

impl Bench {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The exit code of `command inputs flags --force -o to`, and what it said on stderr.
    pub fn run(
        &self,
        command: &str,
        inputs: &[&Path],
        flags: &str,
        to: &str,
    ) -> (Option<i32>, String) {
        let mut tool = lora_tool();
        tool.current_dir(self.0.path()).arg(command).args(inputs).args(flags.split_whitespace());
        let done = tool.args(["--force", "-o"]).arg(self.path(to)).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// The same of a whole line, whose paths are relative to the directory.
    pub fn line(&self, line: &str) -> (Option<i32>, String) {
        let mut tool = lora_tool();
        let done = tool.current_dir(self.0.path()).args(line.split(' ')).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// Runs a line whose last word is its output.
    pub fn made(&self, line: &str) -> PathBuf {
        let (code, said) = self.line(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        self.path(line.rsplit(' ').next().expect("a word"))
    }

    pub fn convert(&self, from: &Path, flags: &str, to: &str) -> PathBuf {
        let (code, said) = self.run("convert", &[from], flags, to);
        assert_eq!(code, Some(0), "{} {flags}: {said}", from.display());
        self.path(to)
    }

    /// What a conversion says that is refused and leaves nothing.
    pub fn refuse(&self, from: &Path, flags: &str, to: &str) -> String {
        let (code, said) = self.run("convert", &[from], flags, to);
        assert_eq!(code, Some(2), "{} {flags}: {said}", from.display());
        assert!(!self.path(to).exists(), "something was left of {flags}");
        said
    }
}
