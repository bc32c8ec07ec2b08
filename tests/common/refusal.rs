//! A directory to run the command in, and what must hold when it refuses: exit code 2, an `error:`
//! that names the facts, a `hint:` where there is something to do, and nothing changed on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Peft, Tensors, lora_tool};

/// The merge that most tests want to see refused.
pub const MERGE: &str = "merge base.safetensors adapter -o out";

/// The one tensor of [`base`], and the module that [`adapter`] changes.
pub const TARGET: &str = "model.layers.0.q_proj.weight";
pub const MODULE: &str = "model.layers.0.q_proj";

/// How errors about the parts of [`adapter`] begin.
pub const FILE: &str = "error: adapter/adapter_model.safetensors: ";
pub const CONFIG: &str = "error: adapter/adapter_config.json: ";

/// The key of one of [`adapter`]'s tensors.
pub fn key(ending: &str) -> String {
    format!("base_model.model.{MODULE}.{ending}")
}

/// A base of one 4 × 3 tensor.
pub fn base() -> Tensors {
    Tensors::new().f32(TARGET, &[4, 3], &[0.5; 12])
}

/// An adapter that fits [`base`]: rank 1, scale 1, adds `amount` to element 5.
pub fn adapter(amount: f32) -> Peft {
    Peft::new(1, 1.0).linear(MODULE, 1, &[0.0, 0.0, 1.0], &[0.0, amount, 0.0, 0.0])
}

/// A directory with inputs under short names; commands run in it.
pub struct Scene(tempfile::TempDir);

impl Scene {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// With `base.safetensors` and `adapter`, which fit.
    pub fn sound() -> Self {
        let scene = Self::empty();
        base().save(&scene.path("base.safetensors"));
        adapter(0.25).save(&scene.path("adapter"));
        scene
    }

    /// With `base.safetensors` and `adapter`.
    pub fn of(base: &Tensors, adapter: &Peft) -> Self {
        let scene = Self::empty();
        base.save(&scene.path("base.safetensors"));
        adapter.save(&scene.path("adapter"));
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        std::fs::create_dir_all(self.path(name)).expect("a directory");
        self.path(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, bytes).expect("written");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("removed");
    }

    /// (exit code, stdout, stderr) of a command given as one line.
    fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let mut command = lora_tool();
        command.current_dir(self.0.path()).args(line.split(' '));
        let output = command.output().expect("the command runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs a line that must succeed; its standard output.
    pub fn runs(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.run(line);
        assert_eq!(code, Some(0), "{line}\n{stderr}");
        stdout
    }

    /// A line that must be refused while it is planned, so by a dry run in the same words.
    ///
    /// The error must hold all of `says`, the hint `hint`; an empty one means that there is none.
    pub fn refuses(&self, line: &str, says: &[&str], hint: &str) {
        let said = self.refuses_late(line, says, hint);
        assert_eq!(self.refuses_late(&format!("{line} --dry-run"), says, hint), said);
    }

    /// A line that must be refused, though only what the base's tensors hold can tell.
    pub fn refuses_late(&self, line: &str, says: &[&str], hint: &str) -> String {
        let before = tree(self.0.path());
        let (code, stdout, stderr) = self.run(line);
        assert_eq!(code, Some(2), "{line}\n{stdout}{stderr}");
        assert_eq!(stdout, "", "{line}");
        assert!(stderr.starts_with("error: "), "{line}\n{stderr}");
        let (error, found) = stderr.split_once("\nhint: ").unwrap_or((&stderr, ""));
        for fragment in says {
            assert!(error.contains(fragment), "{line}\nno `{fragment}` in\n{stderr}");
        }
        assert!(found.contains(hint), "{line}\nno hint `{hint}` in\n{stderr}");
        assert!(hint.is_empty() == found.is_empty(), "{line}\nan unexpected hint in\n{stderr}");
        assert!(before == tree(self.0.path()), "{line}\nsomething changed on the disk\n{stderr}");
        stderr
    }
}

/// Everything below a directory, by relative path; directories and links hold nothing.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            let kind = path.symlink_metadata().expect("metadata").file_type();
            let bytes = if kind.is_file() { std::fs::read(&path) } else { Ok(Vec::new()) };
            let name = path.strip_prefix(root).expect("below the root").to_path_buf();
            found.insert(name, bytes.expect("a readable file"));
            if kind.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}
