//! Who may read what is made of private files: nobody else.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;

use crate::common::fixture;
use crate::common::refusal::Scene;

fn mode(scene: &Scene, name: &str) -> u32 {
    scene.path(name).metadata().expect("it is there").permissions().mode() & 0o777
}

fn set_mode(scene: &Scene, name: &str, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(scene.path(name), permissions).expect("set");
}

#[test]
fn editing_in_place_keeps_a_files_permissions() {
    let scene = Scene::empty();
    scene.write("k.safetensors", std::fs::read(fixture("llama/kohya.safetensors")).expect("read"));
    for wanted in [0o400, 0o640, 0o666] {
        set_mode(&scene, "k.safetensors", wanted);
        scene.runs(&format!("metadata k.safetensors --set a={wanted} --in-place"));
        assert_eq!(mode(&scene, "k.safetensors"), wanted);
    }
    set_mode(&scene, "k.safetensors", 0o600);
    scene.runs("metadata k.safetensors --set a=b -o copy.safetensors");
    assert_eq!(mode(&scene, "copy.safetensors"), 0o600);
}

#[test]
fn what_is_made_of_a_private_file_is_private() {
    let scene = Scene::sound();
    let usual = {
        scene.write("plain", "");
        mode(&scene, "plain")
    };
    let line = "merge base.safetensors adapter -o merged.safetensors --receipt receipt --force";
    scene.runs(line);
    assert_eq!(mode(&scene, "merged.safetensors"), usual);
    set_mode(&scene, "base.safetensors", 0o600);
    scene.runs(line);
    assert_eq!((mode(&scene, "merged.safetensors"), mode(&scene, "receipt")), (0o600, 0o600));
    scene.runs("undo merged.safetensors --receipt receipt -o back.safetensors");
    assert_eq!(mode(&scene, "back.safetensors"), 0o600);
    // Who may write is the umask's affair.
    set_mode(&scene, "base.safetensors", 0o444);
    scene.runs(line);
    assert_eq!(mode(&scene, "merged.safetensors"), usual);
    set_mode(&scene, "base.safetensors", 0o644);
    set_mode(&scene, "adapter/adapter_model.safetensors", 0o600);
    scene.runs(line);
    assert_eq!(mode(&scene, "merged.safetensors"), 0o600, "an adapter is an input too");
}

#[test]
fn adapters_made_of_private_files_are_private() {
    let scene = Scene::sound();
    scene.write("plain", "");
    let usual = mode(&scene, "plain");
    let lines = [
        ("combine adapter adapter -o out --force", "out/adapter_model.safetensors"),
        ("combine adapter adapter -o out --force", "out/adapter_config.json"),
        ("combine adapter adapter --to kohya -o out.safetensors --force", "out.safetensors"),
        ("resize adapter --rank 1 -o out --force", "out/adapter_model.safetensors"),
        ("convert adapter --to kohya -o out.safetensors --force", "out.safetensors"),
        ("convert adapter --to mlx -o mlx --force", "mlx/adapters.safetensors"),
        ("convert adapter --to mlx -o mlx --force", "mlx/adapter_config.json"),
    ];
    for (input, expected) in [(0o644, usual), (0o640, usual & !0o007), (0o600, usual & !0o077)] {
        set_mode(&scene, "adapter/adapter_model.safetensors", input);
        for (line, output) in lines {
            scene.runs(line);
            assert_eq!(mode(&scene, output), expected, "{line}: {output}");
        }
    }
    set_mode(&scene, "adapter/adapter_model.safetensors", 0o644);
    scene.runs("merge base.safetensors adapter -o tuned.safetensors");
    for private in ["base.safetensors", "tuned.safetensors"] {
        set_mode(&scene, private, 0o600);
        scene.runs("extract base.safetensors tuned.safetensors --rank 1 -o out --force");
        assert_eq!(mode(&scene, "out/adapter_model.safetensors"), usual & !0o077, "{private}");
        set_mode(&scene, private, 0o644);
    }
}
