//! What strangers' files and odd surroundings may do: values that are not finite, pipes where files
//! belong, text made to fill memory, names that are no text, signals and limits. Each is refused in
//! words or answered rightly, in bounds of time and memory, and leaves nothing behind.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::refusal::{MERGE, MODULE, Scene, adapter, base, tree};
use crate::common::{Peft, Tensors, lora_tool, read};
use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_lora-tool");

/// A kohya file of one module `x`: rank 2, 4 → 8.
fn kohya(down: &[f32], up: &[f32]) -> Tensors {
    Tensors::new().f32("lora_unet_x.lora_down.weight", &[2, 4], down).f32(
        "lora_unet_x.lora_up.weight",
        &[8, 2],
        up,
    )
}

/// (exit code, stdout and stderr) of what a shell does with `$TOOL`.
fn shell(scene: &Scene, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new("bash");
    let output = command.current_dir(scene.path("")).env("TOOL", TOOL).args(["-c", line]).output();
    let output = output.expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A line that must end in ten seconds; (exit code, stdout, stderr).
fn quick(scene: &Scene, line: &str) -> (Option<i32>, String, String) {
    let mut command = lora_tool();
    command.current_dir(scene.path("")).args(line.split(' ')).timeout(Duration::from_secs(10));
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_spectrum_of_what_is_not_finite_is_none() {
    let scene = Scene::empty();
    let (up, half) = ([0.5; 16], [0.5, -0.2, 0.3, 0.1, 0.7, 0.2, -0.4, 0.6]);
    let mut partly = up;
    partly[0] = f32::INFINITY;
    for (name, down, up) in [("nan", [f32::NAN; 8], up), ("inf", half, partly)] {
        let file = format!("{name}.safetensors");
        kohya(&down, &up).save(&scene.path(&file));
        let text = scene.runs(&format!("inspect {file} --spectrum"));
        assert!(text.contains("1 of 1 modules hold values that are not finite"), "{text}");
        assert!(text.contains("NaN") && !text.contains("0.0000"), "{text}");
        let report = scene.runs(&format!("inspect {file} --spectrum --json"));
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let module = &report["items"][0]["modules"][0];
        for field in ["norm", "effective_rank", "stable_rank", "rank_90"] {
            assert_eq!(module[field], Value::Null, "{name} {field}");
        }
        assert_eq!(module["singular_values"], json!([null, null]), "{name}");
    }
}

#[test]
fn no_magnitude_makes_it_panic() {
    let scene = Scene::empty();
    let tiny: Vec<f32> = (0..16_u8).map(|at| (f32::from(at) - 6.5) * 1e-5).collect();
    kohya(&tiny[..8], &tiny)
        .raw("lora_unet_x.alpha", lora_tool::format::Dtype::F64, &[], &1e-302_f64.to_le_bytes())
        .save(&scene.path("k.safetensors"));
    let down = tiny[..8].to_vec();
    Tensors::new()
        .f32("base_model.model.x.lora_A.weight", &[2, 4], &down)
        .f32("base_model.model.x.lora_B.weight", &[8, 2], &tiny)
        .save(&scene.path("n.safetensors"));
    for scale in ["1e-320", "1e-300", "1e-150", "1e150", "1e300"] {
        for line in [
            "inspect n.safetensors --spectrum",
            "resize n.safetensors --rank 1 -o o -f",
            "resize n.safetensors --rank ratio:10 -o o -f",
            "combine n.safetensors n.safetensors --method cat --rank ratio:10 -o o -f",
            "combine n.safetensors n.safetensors --method ties --rank 1 -o o -f",
            "combine n.safetensors n.safetensors --method tsv -o o -f",
            "compare n.safetensors n.safetensors",
            "diff n.safetensors n.safetensors",
        ] {
            let line = format!("{line} --scale {scale}");
            let (code, _, stderr) = quick(&scene, &line);
            assert!(matches!(code, Some(0..=2)), "{line}: {code:?}\n{stderr}");
        }
    }
    for line in [
        "inspect k.safetensors --spectrum",
        "resize k.safetensors --rank 1 -o o.safetensors -f",
        "combine k.safetensors k.safetensors -w 1e-310 1e-310 --rank 1 -o o.safetensors -f",
    ] {
        let (code, _, stderr) = quick(&scene, line);
        assert!(matches!(code, Some(0..=2)), "{line}: {code:?}\n{stderr}");
    }
}

#[test]
fn an_overflow_on_the_way_is_refused() {
    let scene = Scene::empty();
    for (name, value) in [("big", 3e38), ("ok", 1.0)] {
        kohya(&[value; 8], &[value; 16]).save(&scene.path(&format!("{name}.safetensors")));
    }
    let line = "combine big.safetensors ok.safetensors --method ties --rank 2 -o o.safetensors";
    scene.refuses_late(
        line,
        &["`lora_unet_x`: the combined update is not finite", "f32"],
        "far larger",
    );
    // A factor that only f64 holds is not infinite.
    let values: Vec<u8> = [1e300_f64; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensors::new()
        .raw("lora_unet_x.lora_down.weight", lora_tool::format::Dtype::F64, &[2, 4], &values)
        .f32("lora_unet_x.lora_up.weight", &[8, 2], &[1.0; 16])
        .save(&scene.path("wide.safetensors"));
    scene.refuses_late(
        "resize wide.safetensors --rank 1 -o o.safetensors",
        &["`lora_unet_x.lora_down.weight`: element 0 is 1e300, outside the range of f32"],
        "damaged",
    );
}

#[test]
fn an_update_too_large_to_measure_is_said_to_be() {
    let scene = Scene::of(&base(), &adapter(1e30));
    let (code, stdout, stderr) = quick(&scene, MERGE);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stdout.contains("NaN"), "{stdout}");
}

/// Every verb that reads small files, in a scene with a base directory and a merged one.
#[test]
fn pipes_and_endless_devices_are_refused_at_once() {
    let scene = Scene::sound();
    base().save(&scene.path("b/model.safetensors"));
    scene.write("b/config.json", "{}");
    scene.runs("merge b adapter -o m --receipt r");
    let verbs = [
        "merge b adapter -o o",
        "inspect adapter --against b",
        "verify b --base b --adapter adapter",
        "convert adapter --to gguf --reference b -o o.gguf",
        "check adapter --for peft --against b",
    ];
    let config = scene.path("b/config.json");
    for device in ["pipe", "/dev/zero"] {
        std::fs::remove_file(&config).expect("removed");
        match device {
            "pipe" => {
                assert!(Command::new("mkfifo").arg(&config).status().expect("mkfifo").success());
            }
            device => symlink(device, &config).expect("a link"),
        }
        for verb in verbs {
            let (code, _, stderr) = quick(&scene, verb);
            assert_eq!(code, Some(2), "{device}: {verb}\n{stderr}");
            assert!(stderr.contains("config.json: it is no regular file"), "{verb}\n{stderr}");
        }
    }
}

#[test]
fn a_config_that_cannot_be_read_is_not_none() {
    let scene = Scene::sound();
    base().save(&scene.path("b/model.safetensors"));
    for (text, says) in [("{\"tie_word", "EOF"), ("[1]", "no JSON object"), ("", "EOF")] {
        scene.write("b/config.json", text);
        let says = ["error: b/config.json: ", says];
        scene.refuses("merge b adapter -o out", &says, "correct it");
    }
    scene.remove("b/config.json");
    scene.directory("b/config.json");
    scene.refuses("merge b adapter -o out", &["error: b/config.json: it is a directory"], "");
    std::fs::remove_dir(scene.path("b/config.json")).expect("removed");
    symlink("nowhere", scene.path("b/config.json")).expect("a link");
    scene.refuses("merge b adapter -o out", &["error: b/config.json: "], "");
}

#[test]
fn hostile_text_is_refused_in_little_memory() {
    let scene = Scene::sound();
    let tensors = std::fs::read(scene.path("adapter/adapter_model.safetensors")).expect("there");
    let junk = |count: usize| format!("[{}1]", "1,".repeat(count));
    let config = |name: &str, text: String| {
        scene.write(&format!("{name}/adapter_model.safetensors"), &tensors);
        scene.write(&format!("{name}/adapter_config.json"), text);
    };
    config("long", format!("{{\"peft_type\":\"LORA\",\"junk\":{}}}", junk(20_000_000)));
    config("values", format!("{{\"peft_type\":\"LORA\",\"junk\":{}}}", junk(1_500_000)));
    let patterns: Vec<_> = (0..100_000).map(|n| format!("\"p{n}.*\":8")).collect();
    config(
        "patterns",
        format!("{{\"peft_type\":\"LORA\",\"rank_pattern\":{{{}}}}}", patterns.join(",")),
    );
    let index =
        format!("{{\"weight_map\":{{\"a\":\"x.safetensors\"}},\"junk\":{}}}", junk(10_000_000));
    scene.write("index/model.safetensors.index.json", index);
    let file = |name: &str, json: String| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        scene.write(name, bytes);
    };
    let tensor = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let many: Vec<_> = (0..400_000).map(|n| format!("\"t{n}\":{tensor}")).collect();
    file("many.safetensors", format!("{{{}}}", many.join(",")));
    file("name.safetensors", format!("{{\"{}\":{tensor}}}", "n".repeat(90_000_000)));
    let shape = junk(40_000_000);
    file("shape.safetensors", format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape}}}}}"));
    for (line, says) in [
        ("inspect long", "more than the 4194304"),
        ("inspect values", "more than 200000 values"),
        ("inspect patterns", "at most 1000 are read"),
        ("inspect index", "more than 200000 values"),
        ("inspect many.safetensors", "more than 262144 tensors"),
        ("check name.safetensors --for peft", "more than 20971520 bytes of names"),
        ("inspect shape.safetensors", "more than 32 dimensions"),
    ] {
        // Address space: threads' stacks, mappings and the program itself are in it too.
        let (code, text) = shell(&scene, &format!("ulimit -v 700000; timeout 20 $TOOL {line}"));
        assert_eq!(code, Some(2), "{line}\n{text:.500}");
        assert!(text.contains(says), "{line}\n{text:.500}");
        assert!(text.len() < 5000, "{line}: {} bytes", text.len());
    }
}

#[test]
fn an_archive_or_a_page_is_called_what_it_is() {
    let scene = Scene::sound();
    for (start, says, hint) in [
        ("<!DOCTYPE html><html><body>login</body></html>", "an HTML page", "login"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS",
            "git lfs pull",
        ),
        ("{\"error\":\"Entry not found, or what servers say\"}", "JSON", "directory"),
    ] {
        scene.write("f.safetensors", start);
        let says = format!("error: f.safetensors: it is {says}, not a safetensors file");
        scene.refuses("merge f.safetensors adapter -o out", &[&says], hint);
    }
}

#[test]
fn a_limit_on_file_sizes_is_an_error_without_a_trap() {
    let scene = Scene::sound();
    Tensors::new()
        .f32("m.weight", &[128, 128], &vec![0.5; 128 * 128])
        .save(&scene.path("b.safetensors"));
    Peft::new(1, 1.0).linear("m", 1, &[1.0; 128], &[1.0; 128]).save(&scene.path("a"));
    let before = tree(&scene.path(""));
    let (code, text) = shell(&scene, "ulimit -f 10; $TOOL merge b.safetensors a -o out");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert!(before == tree(&scene.path("")), "something is left");
}

#[test]
fn a_closed_terminal_leaves_nothing_and_nohup_goes_on() {
    let scene = Scene::sound();
    // A recipe that is read from a pipe keeps the program waiting for as long as it takes.
    let wait = "sleep 5 | $TOOL run - & sleep 0.5; kill -HUP $!; wait $!; echo code $?";
    assert!(shell(&scene, wait).1.contains("code 129"));
    let nohup = "trap '' HUP; (sleep 1; echo nonsense) | $TOOL run - & sleep 0.4; kill -HUP $!; wait $!; echo code $?";
    assert!(shell(&scene, nohup).1.contains("code 2"));
}

#[test]
fn bytes_lost_under_a_mapping_are_an_error() {
    let scene = Scene::empty();
    let side = 4096;
    let header = format!(
        r#"{{"m.weight":{{"dtype":"F32","shape":[{side},{side}],"data_offsets":[0,{}]}}}}"#,
        side * side * 4
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    Peft::new(1, 1.0).linear("m", 1, &vec![1.0; side], &vec![1.0; side]).save(&scene.path("a"));
    let mut ended = Vec::new();
    for run in 0..6u64 {
        scene.write("b.safetensors", &bytes);
        let file = std::fs::File::options().write(true).open(scene.path("b.safetensors"));
        let file = file.expect("open");
        file.set_len((bytes.len() + side * side * 4) as u64).expect("sparse");
        let mut command = Command::new(TOOL);
        command.current_dir(scene.path("")).args([
            "merge",
            "b.safetensors",
            "a",
            "-o",
            "out",
            "-f",
        ]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(20 + 15 * run));
        file.set_len(5000).expect("cut");
        let output = child.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // It was faster than the cut, or says what happened; a signal leaves no code.
        assert!(matches!(output.status.code(), Some(0 | 2)), "{:?}\n{said}", output.status);
        let left: Vec<PathBuf> = tree(&scene.path("")).into_keys().collect();
        assert!(
            !left.iter().any(|path| path.display().to_string().contains("partial")),
            "{left:?}"
        );
        ended.push(output.status.code());
    }
    assert!(ended.contains(&Some(2)), "{ended:?}");
}

#[test]
fn side_files_are_carried_or_listed() {
    let scene = Scene::sound();
    base().save(&scene.path("b/model.safetensors"));
    let dense = Tensors::new().f32("linear.weight", &[2, 3], &[0.25; 6]);
    dense.save(&scene.path("b/2_Dense/model.safetensors"));
    dense.save(&scene.path("b/checkpoint-7/model.safetensors"));
    dense.save(&scene.path("b/adapter_model.safetensors"));
    for (name, text) in [
        ("config.json", "{}"),
        (
            "modules.json",
            r#"[{"idx":0,"path":""},{"idx":1,"path":"1_Pooling"},{"idx":2,"path":"2_Dense"}]"#,
        ),
        ("1_Pooling/config.json", "{}"),
        ("2_Dense/config.json", "{}"),
        ("a/b/c/deep.txt", "deep"),
        ("adapter_config.json", "{}"),
        ("pytorch_model.bin", "x"),
    ] {
        scene.write(&format!("b/{name}"), text);
    }
    let bad = |byte: u8| scene.path("b").join(OsStr::from_bytes(&[b'n', byte]));
    std::fs::write(bad(0xff), "1").expect("written");
    std::fs::write(bad(0xfe), "2").expect("written");
    symlink("nowhere", scene.path("b/dangling.txt")).expect("a link");
    symlink(".", scene.path("b/loop")).expect("a link");
    let plan = scene.runs("merge b adapter -o out --dry-run");
    for word in ["2_Dense/model.safetensors", "a/b/c/deep.txt", "not carried", "pytorch_model.bin"]
    {
        assert!(plan.contains(word), "no {word} in\n{plan}");
    }
    let report = scene.runs("merge b adapter -o out --json");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let not_carried = report["not_carried"].as_array().expect("a list");
    let reason = |file: &str| {
        let found = not_carried.iter().find(|entry| entry["file"] == file);
        found.map(|entry| entry["reason"].as_str().unwrap_or_default().to_owned())
    };
    for (file, says) in [
        ("adapter_config.json", "an adapter's"),
        ("adapter_model.safetensors", "an adapter's"),
        ("pytorch_model.bin", "weights"),
        ("checkpoint-7/model.safetensors", "weights"),
        ("dangling.txt", "cannot be read"),
        ("loop/", "a link"),
        ("n\u{fffd}", "not UTF-8"),
    ] {
        assert!(
            reason(file).is_some_and(|reason| reason.contains(says)),
            "{file}: {not_carried:?}"
        );
    }
    assert_eq!(not_carried.iter().filter(|entry| entry["file"] == "n\u{fffd}").count(), 2);
    let carried: Vec<String> =
        tree(&scene.path("out")).into_keys().map(|path| path.display().to_string()).collect();
    for file in ["1_Pooling/config.json", "2_Dense/config.json", "a/b/c/deep.txt", "modules.json"] {
        assert!(carried.iter().any(|path| path == file), "no {file} in {carried:?}");
    }
    for file in ["adapter_config.json", "pytorch_model.bin", "checkpoint-7/model.safetensors"] {
        assert!(!carried.iter().any(|path| path == file), "{file} in {carried:?}");
    }
    let before = read(&scene.path("b/2_Dense/model.safetensors"));
    assert_eq!(
        read(&scene.path("out/2_Dense/model.safetensors"))["linear.weight"].bytes,
        before["linear.weight"].bytes
    );
}

#[test]
fn odd_surroundings_are_told_in_words() {
    let scene = Scene::sound();
    base().save(&scene.path("b/model.safetensors"));
    scene.write("b/config.json", "{}");
    // The output is whole; only its report had no room.
    let (code, text) = shell(&scene, "$TOOL merge b adapter -o full > /dev/full");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("only the report is lost: full is complete and in place"), "{text}");
    assert!(scene.path("full/model.safetensors").is_file());

    let (code, text) = shell(&scene, "$TOOL resize adapter --rank 1 -o t --threads 1000000");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("at most 1024"), "{text}");

    symlink("/nonexist", scene.path("d.safetensors")).expect("a link");
    scene.refuses_late(
        "inspect d.safetensors",
        &["no such file"],
        "a link to /nonexist, which is not there",
    );
    scene.refuses(
        "merge base.safetensors adapter -o nodir/sub/out",
        &["its directory nodir/sub does not exist"],
        "mkdir -p nodir/sub",
    );
    let long = "n".repeat(250);
    scene.runs(&format!("merge base.safetensors adapter -o {long}"));
    assert!(scene.path(&long).is_dir());
}

#[test]
fn paths_that_are_no_text_work_in_every_verb() {
    let scene = Scene::sound();
    let name = |ending: &str| {
        let mut name = vec![b'a', 0xff];
        name.extend_from_slice(ending.as_bytes());
        PathBuf::from(OsStr::from_bytes(&name))
    };
    kohya(&[0.5; 8], &[0.25; 16]).save(&scene.path("k.safetensors"));
    std::fs::rename(scene.path("k.safetensors"), scene.path("").join(name(".safetensors")))
        .expect("moved");
    std::fs::rename(scene.path("base.safetensors"), scene.path("").join(name("b.safetensors")))
        .expect("moved");
    let run = |parts: &[&OsStr]| {
        let output = lora_tool().current_dir(scene.path("")).args(parts).output().expect("it runs");
        assert!(output.status.success(), "{parts:?}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    let (kohya, base) = (name(".safetensors"), name("b.safetensors"));
    let (kohya, base) = (kohya.as_os_str(), base.as_os_str());
    let word = OsStr::new;
    run(&[word("inspect"), kohya]);
    run(&[word("resize"), kohya, word("--rank"), word("1"), word("-o"), word("r.safetensors")]);
    run(&[word("combine"), kohya, kohya, word("-o"), name("c.safetensors").as_os_str()]);
    run(&[word("compare"), kohya, kohya]);
    run(&[word("diff"), kohya, kohya]);
    run(&[word("merge"), base, word("adapter"), word("-o"), name("out").as_os_str()]);
    let before = read(&scene.path("").join(name("out")).join("a\u{fffd}b.safetensors"));
    assert!(before.keys().any(|key| key.starts_with(MODULE)));
}
