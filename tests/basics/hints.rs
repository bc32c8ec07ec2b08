//! What the command says about the mistakes that are made most: the words that lead out of them.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use crate::common::{fixture, lora_tool};

/// Runs a command line in a directory with the fixtures' `llama`, and expects it to fail with a hint.
fn hints(cases: &[(&str, &str)], files: &[(&str, &[u8])]) {
    let root = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(fixture("llama"), root.path().join("llama")).expect("linked");
    for (name, bytes) in files {
        std::fs::write(root.path().join(name), bytes).expect("written");
    }
    for (line, hint) in cases {
        let done = lora_tool()
            .current_dir(root.path())
            .args(line.split_whitespace())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(hint), "{line}\nexpected: {hint}\nsaid: {said}");
        assert!(!root.path().join("out").exists(), "{line} left something");
    }
}

#[test]
#[cfg(unix)]
fn mistakes_in_what_is_typed() {
    hints(
        &[
            ("mrege llama/base llama/style -o out", "'merge'"),
            ("merge llama/bse llama/style -o out", "did you mean `llama/base`?"),
            ("merge lama/base llama/style -o out", "did you mean `llama/base`?"),
            ("inspect llama/kohya.safetensor", "did you mean `llama/kohya.safetensors`?"),
            ("merge meta-models/Nano-7b llama/style -o out", "hf download meta-models/Nano-7b"),
            ("merge llama/style llama/base -o out", "the base comes first"),
            ("combine llama/style llama/task -o out --method liner", "did you mean `linear`?"),
            ("merge llama/base llama/style -w 1 2 -o out", "one weight per adapter"),
            ("merge llama/base llama/style -o llama/task", "--force"),
            ("merge llama/base llama/style -o out --include nothing", "--modules"),
            ("merge llama/base -o out", "no adapter is named to merge into llama/base"),
            ("merge llama/base llama/style -o out.bin", "pickles are not written"),
            (
                "merge llama/base/model-00001-of-00002.safetensors llama/style -o out.safetensors",
                "this is shard 1 of 2: name the directory, llama/base",
            ),
            ("combine llama/style:abc llama/task -o out", "`abc` is no number"),
            ("convert llama/style --to vllm -o out", "--for vllm writes what it loads"),
            (
                "convert llama/style --to gguf -o out.gguf",
                "--reference BASE, the base model's directory",
            ),
            (
                "convert llama/style --to diffusers -o out.safetensors",
                "14 modules, such as model.layers.0.mlp.down_proj: its name",
            ),
            (
                "convert llama/style --to diffusers --allow-loss -o out.safetensors",
                "nothing of it can be written in the diffusers convention",
            ),
            ("resize llama/style -o out --rank energy:95", "did you mean energy:0.95?"),
            ("resize llama/style -o out --rank 90%", "did you mean energy:0.9?"),
            ("resize llama/style -o out --rank size:1KB", "takes 11 kB (11192 bytes)"),
            ("diff llama/base llama/style", "compare two adapters, or two checkpoints"),
            ("metadata llama/kohya.safetensors --remove nosuch -o out", "no entry `nosuch`"),
            ("work nowhere.json", "nowhere.json: no such file"),
        ],
        &[],
    );
}

#[test]
#[cfg(unix)]
fn files_that_are_something_else() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    hints(
        &[
            ("inspect pointer.safetensors", "git lfs pull"),
            ("inspect page.safetensors", "login"),
            ("inspect zip.safetensors", "save it as .safetensors"),
            ("inspect pickle.bin", "weights_only=True"),
            ("inspect llama/style/adapter_config.json", "name the directory it lies in"),
            ("inspect cut.safetensors", "fetch the file again"),
        ],
        &[
            ("pointer.safetensors", pointer),
            ("page.safetensors", b"<!doctype html><title>Sign in</title>"),
            ("zip.safetensors", b"PK\x03\x04archive/data.pkl and more"),
            ("pickle.bin", b"\x80\x02}q\x00."),
            ("cut.safetensors", &[200, 0, 0, 0, 0, 0, 0, 0, b' ']),
        ],
    );
}
