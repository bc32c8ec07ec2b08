//! Command lines as users of kohya's scripts, PEFT, musubi, mergekit and MLX type them give what ours do.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;

use crate::common::{fixture, lora_tool, read};

fn run(root: &Path, line: &str) {
    let done = lora_tool().current_dir(root).args(line.split_whitespace()).output();
    let done = done.expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{line}: {said}");
}

#[test]
#[cfg(unix)]
fn other_tools_options_are_understood() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path();
    std::os::unix::fs::symlink(fixture("llama"), path.join("llama")).expect("linked");
    let cases = [
        (
            "merge llama/base llama/style llama/task -w 0.5 -1 --dtype f32 -o OUT",
            &[
                "merge --sd_model llama/base --models llama/style llama/task --ratios 0.5 -1 \
                 --save_precision float --save_to OUT",
                "merge --dit llama/base --lora_weight llama/style llama/task --lora_multiplier 0.5 -1 \
                 --save-precision float --save_merged_model OUT",
            ][..],
        ),
        (
            "merge llama/base llama/style -o OUT",
            &["merge --model llama/base --adapter-path llama/style --save-path OUT"],
        ),
        (
            "combine llama/style llama/task -w 0.5 0.25 --rank 6 -o OUT",
            &[
                "combine --models llama/style llama/task --ratios 0.5 0.25 --new_rank 6 --save_to OUT",
                "combine llama/style llama/task --weights 0.5,0.25 --combination_type linear \
                 --svd_rank 6 --out-path OUT",
            ],
        ),
        (
            "resize llama/kohya.safetensors --rank sv_fro:0.9 --max-rank 3 -o OUT.safetensors",
            &["resize --model llama/kohya.safetensors --new_rank 3 --dynamic_method sv_fro \
               --dynamic_param 0.9 --save_to OUT.safetensors"],
        ),
        (
            "extract llama/base out-0-0 --rank 4 -o OUT",
            &[
                "extract --model_org llama/base --model_tuned out-0-0 --dim 4 --save_to OUT",
                "extract --model out-0-0 --base-model llama/base --rank 4 --out-path OUT",
            ],
        ),
    ];
    for (at, (ours, theirs)) in cases.iter().enumerate() {
        let name = |which: usize| format!("out-{at}-{which}");
        run(path, &ours.replace("OUT", &name(0)));
        let end = if ours.contains("OUT.") { ".safetensors" } else { "" };
        let expected = read(&path.join(name(0) + end));
        for (which, line) in theirs.iter().enumerate() {
            run(path, &line.replace("OUT", &name(which + 1)));
            assert_eq!(read(&path.join(name(which + 1) + end)), expected, "{line}");
        }
    }
}
