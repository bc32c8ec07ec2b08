//! Every family in every convention that has it, converted to every convention and back: the same
//! update, or a refusal. What is possible is a table, so that nothing is lost unnoticed.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::common::dense::Dense;
use crate::common::models::{CONV, FUSED, Fixture, LINEAR, Model, NORM, Site, WIDE, WORDS};
use crate::common::samples::{KOHYA, Layer, PEFT, Sample};
use crate::common::{Bench, Read, lora_tool, read};

/// The targets, as the columns of [`TABLE`] are.
const TARGETS: [&str; 6] = ["peft", "mlx", "gguf", "comfyui", "diffusers", "kohya"];

/// `=`: only names change, there and back every tensor keeps its bytes; `>`: so there, but it comes
/// back as other tensors of the same update; `~`: the update is the same within 10⁻⁶, there and back;
/// `-`: refused. A blank is a target that has no names for the model.
const TABLE: &str = "\
convention/family            peft        mlx       gguf      comfyui   diffusers    kohya
kohya/lora                     =                                =          =          =
kohya/lora-no-alpha            =                                =          =          =
kohya/lora-bias                ~                                =          ~          =
kohya/locon                    ~                                =          ~          =
kohya/dora-outputs             =                                =          =          =
kohya/dora-inputs              -                                =          -          =
kohya/loha                     ~                                =          ~          =
kohya/loha-cores               ~                                =          ~          =
kohya/loha-dora                ~                                =          ~          =
kohya/lokr-whole               ~                                =          ~          =
kohya/lokr-second              ~                                =          ~          =
kohya/lokr-first               ~                                =          ~          =
kohya/lokr-both                ~                                =          ~          =
kohya/lokr-conv                ~                                =          ~          =
kohya/lokr-core                ~                                =          ~          =
kohya/full                     -                                =          -          =
kohya/bias                     -                                =          -          =
kohya/norm                     -                                =          -          =
kohya/glora                    -                                =          -          =
kohya/diag-oft                 -                                ~          -          =
kohya/diag-oft-rescaled        -                                ~          -          =
kohya/boft                     -                                =          -          =
kohya/ia3-outputs              -                                -          -          =
kohya/ia3-inputs               -                                -          -          =
comfyui/lora                   =                                =          -          =
comfyui/lora-no-alpha          =                                =          -          =
comfyui/lora-bias              ~                                =          -          =
comfyui/locon                  ~                                =          -          =
comfyui/dora-outputs           =                                =          -          =
comfyui/dora-inputs            -                                =          -          =
comfyui/loha                   ~                                =          -          =
comfyui/loha-cores             ~                                =          -          =
comfyui/loha-dora              ~                                =          -          =
comfyui/lokr-whole             ~                                =          -          =
comfyui/lokr-second            ~                                =          -          =
comfyui/lokr-first             ~                                =          -          =
comfyui/lokr-both              ~                                =          -          =
comfyui/lokr-conv              ~                                =          -          =
comfyui/lokr-core              ~                                =          -          =
comfyui/full                   -                                =          -          =
comfyui/bias                   -                                =          -          =
comfyui/norm                   -                                =          -          =
comfyui/glora                  -                                =          -          =
comfyui/diag-oft               -                                ~          -          >
comfyui/diag-oft-rescaled      -                                ~          -          >
comfyui/boft                   -                                =          -          =
peft/lora                      =          ~          ~                                =
peft/lora-conv                 =                                =          =          =
peft/lora-bias                 =          -          -                                ~
peft/lora-dora                 =          ~          -                                =
peft/lora-dora-conv            =                                =          =          =
peft/lora-embedding            =          ~          ~                                -
peft/loha                      =          ~          ~                                >
peft/loha-cores                =                                >          ~          >
peft/lokr-whole                =          ~          ~                                ~
peft/lokr-second               =          ~          ~                                >
peft/lokr-first                =          ~          ~                                >
peft/lokr-both                 =          ~          ~                                >
peft/adalora                   =          ~          ~                                ~
peft/vera                      =          ~          ~                                ~
peft/miss                      =          ~          ~                                ~
peft/ia3                       =          -          -                                -
peft/oft                       =          -          -                                -
peft/boft                      =          -          -                                -
peft/hra                       =          -          -                                -
peft/hira                      =          -          -                                -
kohya/oft                      -                                ~          -          =
diffusers/lora                 =                                =          =          =
diffusers/lora-bias            =                                ~          =          ~
diffusers/dora                 =                                =          =          =
mlx/lora                       ~          =          ~                                ~
mlx/dora                       ~          =          -                                ~
gguf/lora                      ~          ~          ~                                ~
xlabs/lora                     ~                                =          ~          =
comfyui/flux                   ~                                =          ~          =
";

/// Why, of every `-`: the first line whose conventions and families have the pair.
const REASONS: [(&str, &str, &str, &str); 17] = [
    ("comfyui", "", "diffusers", "its name in the diffusers convention is unknown"),
    ("kohya comfyui", "dora-inputs", "peft diffusers", "its magnitudes of inputs (DoRA)"),
    ("kohya comfyui", "full norm", "peft diffusers", "a full update is as large as the weight"),
    ("kohya comfyui", "bias", "peft diffusers", "it changes a bias alone"),
    ("kohya comfyui", "glora", "peft diffusers", "glora updates depend on the base's weights"),
    (
        "kohya comfyui",
        "diag-oft diag-oft-rescaled oft boft",
        "peft",
        "LyCORIS' and kohya's rotate outputs, PEFT's inputs; --to kohya keeps it",
    ),
    (
        "kohya comfyui",
        "diag-oft diag-oft-rescaled oft boft",
        "diffusers",
        "it rotates the base's weights, which no factors do; --to kohya keeps it",
    ),
    (
        "kohya",
        "ia3-outputs ia3-inputs",
        "peft comfyui diffusers",
        "it scales the base's weights, which no factors do; --to kohya keeps it",
    ),
    ("peft", "lora-bias", "mlx gguf", "its bias"),
    ("peft mlx", "lora-dora dora", "gguf", "its magnitudes (DoRA)"),
    ("peft", "lora-embedding", "kohya", "no names for an embedding's factors"),
    ("peft", "oft boft", "mlx gguf", "which no factors do; --to peft keeps it"),
    ("peft", "oft boft", "kohya", "PEFT's rotates inputs, LyCORIS' outputs; --to peft keeps it"),
    ("peft", "ia3", "mlx gguf", "it scales the base's weights, which no factors do"),
    ("peft", "ia3", "kohya", "PEFT's scales the bias with the outputs"),
    ("peft", "hra hira", "mlx gguf kohya", "only PEFT has the family; --to peft keeps it"),
    ("", "", "", "a pair without a reason"),
];

/// What a refusal must say of each module.
fn reason(fixture: &Fixture, to: &str) -> &'static str {
    let (own, family) = fixture.name.split_once('/').expect("convention/family");
    let has = |words: &str, word: &str| words.is_empty() || words.split(' ').any(|w| w == word);
    let (.., words) = REASONS
        .iter()
        .find(|(from, families, targets, _)| {
            has(from, own) && has(families, family) && has(targets, to)
        })
        .expect("the last is for all");
    words
}

/// One of each family on the sites that it can be for.
fn fixtures() -> Vec<Fixture> {
    use Model::{Checkpoint, Flux, Language, Pipeline, Unet};
    use Site::{Conv, Fused, Linear, Norm, Wide, Words};
    let mut all: Vec<Fixture> = Vec::new();
    let mut add = |name, model, modules| all.push(Fixture { name, model, modules });
    let both =
        |make: fn(u64, Layer) -> Sample| vec![(Linear, make(1, LINEAR)), (Conv, make(2, CONV))];
    let linear = |make: fn(u64, Layer) -> Sample| vec![(Linear, make(3, LINEAR))];
    let conv = |make: fn(u64, Layer) -> Sample| vec![(Conv, make(4, CONV))];
    let two =
        |make: fn(u64, Layer) -> Sample| vec![(Linear, make(5, LINEAR)), (Wide, make(6, WIDE))];

    for (model, names) in [(Pipeline, &IN_KOHYA), (Checkpoint, &IN_COMFYUI)] {
        let families: [Vec<(Site, Sample)>; 24] = [
            both(Sample::lora),
            vec![(Linear, Sample::low_rank(7, LINEAR, KOHYA, 3, None))],
            both(|seed, layer| Sample::lora(seed, layer).diff_b()),
            conv(Sample::locon),
            both(|seed, layer| Sample::lora(seed, layer).dora_scale(true)),
            both(|seed, layer| Sample::lora(seed, layer).dora_scale(false)),
            both(Sample::loha),
            conv(Sample::loha_with_cores),
            linear(|seed, layer| Sample::loha(seed, layer).dora_scale(true)),
            linear(|seed, layer| Sample::lokr(seed, layer, (0, 0))),
            linear(|seed, layer| Sample::lokr(seed, layer, (0, 2))),
            linear(|seed, layer| Sample::lokr(seed, layer, (1, 0))),
            linear(|seed, layer| Sample::lokr(seed, layer, (1, 2))),
            conv(|seed, layer| Sample::lokr_conv(seed, layer, false)),
            conv(|seed, layer| Sample::lokr_conv(seed, layer, true)),
            both(Sample::full),
            linear(Sample::bias_only),
            vec![(Norm, Sample::norm(8, NORM))],
            linear(Sample::glora),
            linear(|seed, layer| Sample::diag_oft(seed, layer, false)),
            linear(|seed, layer| Sample::diag_oft(seed, layer, true)),
            linear(Sample::boft_of_lycoris),
            linear(|seed, layer| Sample::ia3_of_lycoris(seed, layer, false)),
            linear(|seed, layer| Sample::ia3_of_lycoris(seed, layer, true)),
        ];
        for (name, modules) in names.iter().zip(families) {
            // Only flattened names can be told from a base's.
            if !name.is_empty() {
                add(*name, model, modules);
            }
        }
    }
    add("peft/lora", Language, two(Sample::peft_lora));
    add("peft/lora-conv", Unet, both(Sample::peft_lora));
    add("peft/lora-bias", Language, two(Sample::peft_bias));
    add("peft/lora-dora", Language, two(Sample::peft_dora));
    add("peft/lora-dora-conv", Unet, both(Sample::peft_dora));
    add("peft/lora-embedding", Language, vec![(Words, Sample::peft_embedding(9, WORDS))]);
    add("peft/loha", Language, two(Sample::peft_loha));
    add("peft/loha-cores", Unet, conv(Sample::peft_loha_with_cores));
    add("peft/lokr-whole", Language, two(|s, l| Sample::peft_lokr(s, l, (0, 0))));
    add("peft/lokr-second", Language, two(|s, l| Sample::peft_lokr(s, l, (0, 2))));
    add("peft/lokr-first", Language, two(|s, l| Sample::peft_lokr(s, l, (2, 0))));
    add("peft/lokr-both", Language, two(|s, l| Sample::peft_lokr(s, l, (2, 2))));
    add("peft/adalora", Language, two(Sample::adalora));
    add("peft/vera", Language, two(Sample::vera));
    add("peft/miss", Language, two(Sample::miss));
    add("peft/ia3", Language, two(Sample::peft_ia3));
    add("peft/oft", Language, two(Sample::peft_oft));
    add("peft/boft", Language, two(Sample::peft_boft));
    add("peft/hra", Language, two(Sample::hra));
    add("peft/hira", Language, two(Sample::hira));
    add("kohya/oft", Pipeline, linear(|seed, layer| Sample::diag_oft(seed, layer, false)));
    add("diffusers/lora", Pipeline, both(Sample::peft_lora));
    add("diffusers/lora-bias", Pipeline, both(Sample::peft_bias));
    add("diffusers/dora", Pipeline, both(Sample::peft_dora));
    add("mlx/lora", Language, two(Sample::mlx_lora));
    add("mlx/dora", Language, two(Sample::mlx_dora));
    add("gguf/lora", Language, vec![(Wide, Sample::gguf_lora(10, WIDE))]);
    let flux = |make: fn(u64, Layer) -> Sample| {
        vec![(Linear, make(11, LINEAR)), (Wide, make(12, WIDE)), (Fused, make(13, FUSED))]
    };
    add("xlabs/lora", Flux, flux(|s, l| Sample::low_rank(s, l, XLABS, 3, None)));
    add("comfyui/flux", Flux, flux(|s, l| Sample::low_rank(s, l, PEFT, 3, Some(2.0))));
    all
}

const XLABS: [&str; 2] = ["down.weight", "up.weight"];

const IN_KOHYA: [&str; 24] = [
    "kohya/lora",
    "kohya/lora-no-alpha",
    "kohya/lora-bias",
    "kohya/locon",
    "kohya/dora-outputs",
    "kohya/dora-inputs",
    "kohya/loha",
    "kohya/loha-cores",
    "kohya/loha-dora",
    "kohya/lokr-whole",
    "kohya/lokr-second",
    "kohya/lokr-first",
    "kohya/lokr-both",
    "kohya/lokr-conv",
    "kohya/lokr-core",
    "kohya/full",
    "kohya/bias",
    "kohya/norm",
    "kohya/glora",
    "kohya/diag-oft",
    "kohya/diag-oft-rescaled",
    "kohya/boft",
    "kohya/ia3-outputs",
    "kohya/ia3-inputs",
];

const IN_COMFYUI: [&str; 24] = [
    "comfyui/lora",
    "comfyui/lora-no-alpha",
    "comfyui/lora-bias",
    "comfyui/locon",
    "comfyui/dora-outputs",
    "comfyui/dora-inputs",
    "comfyui/loha",
    "comfyui/loha-cores",
    "comfyui/loha-dora",
    "comfyui/lokr-whole",
    "comfyui/lokr-second",
    "comfyui/lokr-first",
    "comfyui/lokr-both",
    "comfyui/lokr-conv",
    "comfyui/lokr-core",
    "comfyui/full",
    "comfyui/bias",
    "comfyui/norm",
    "comfyui/glora",
    "comfyui/diag-oft",
    "comfyui/diag-oft-rescaled",
    "comfyui/boft",
    "",
    "",
];

/// What an update may be off, relative to its size.
const CLOSE: f64 = 1e-6;

/// ‖merged − expected‖ / ‖expected − base‖ over all tensors of the model.
fn error(fixture: &Fixture, base: &Path, adapter: &Path, bench: &Bench) -> f64 {
    let merged = read(&bench.merge(base, &[adapter], ""));
    let before = read(base);
    let (mut off, mut whole) = (0.0, 0.0);
    let mut expected: BTreeMap<String, Vec<f64>> =
        before.iter().map(|(name, tensor)| (name.clone(), tensor.values())).collect();
    for (site, sample) in &fixture.modules {
        let name = fixture.model.tensor(*site);
        let weight = expected.get_mut(&format!("{name}.weight")).expect("the layer");
        let rows = sample.layer.outputs;
        let stored = Dense::new(rows, weight.len() / rows, weight.clone());
        *weight = (sample.formula)(&stored).values;
        if let Some(bias) = &sample.bias {
            let own = expected.get_mut(&format!("{name}.bias")).expect("a bias");
            own.iter_mut().zip(bias).for_each(|(value, by)| *value += by);
        }
    }
    for (name, expected) in &expected {
        let (before, after) = (before[name].values(), merged[name].values());
        for ((after, expected), before) in after.iter().zip(expected).zip(before) {
            off += (after - expected).powi(2);
            whole += (expected - before).powi(2);
        }
    }
    (off / whole).sqrt()
}

/// All tensors but alphas, in an order that names do not change.
fn contents(adapter: &Path) -> Vec<Vec<u8>> {
    let mut file = adapter.to_path_buf();
    for name in ["adapter_model.safetensors", "adapters.safetensors"] {
        if adapter.join(name).exists() {
            file = adapter.join(name);
        }
    }
    let tensors = read(&file).into_iter().filter(|(name, _)| !name.ends_with(".alpha"));
    let mut contents: Vec<Vec<u8>> = tensors.map(|(_, tensor): (_, Read)| tensor.bytes).collect();
    contents.sort();
    contents
}

fn convert(from: &Path, to: &str, base: &Path, out: PathBuf) -> Result<PathBuf, String> {
    let mut command = lora_tool();
    command.arg("convert").arg(from).args(["--to", to, "--reference"]).arg(base);
    let done = command.arg("-o").arg(&out).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    match done.status.code() {
        Some(0) => Ok(out),
        Some(2) if !out.exists() => Err(said),
        code => Err(format!("exit code {code:?}, {} left: {said}", out.exists())),
    }
}

fn output(bench: &Bench, name: &str, convention: &str) -> PathBuf {
    let ending = match convention {
        "peft" | "mlx" => "",
        "gguf" => ".gguf",
        _ => ".safetensors",
    };
    bench.path(&format!("{name}{ending}"))
}

/// The sign of the table that is true of a conversion, or what is wrong with it.
fn sign(
    fixture: &Fixture,
    adapter: &Path,
    to: &str,
    base: &Path,
    bench: &Bench,
) -> Result<char, String> {
    let there = match convert(adapter, to, base, output(bench, to, to)) {
        Ok(there) => there,
        Err(said) if said.contains("the conversion would lose") => {
            let names = fixture.names();
            let why = reason(fixture, to);
            let told = |name: &&String| {
                let line = said.lines().find(|line| line.starts_with(&format!("  {name}: ")));
                !line.is_some_and(|line| line.contains(why))
            };
            let silent = names.iter().find(told);
            return silent
                .map_or(Ok('-'), |name| Err(format!("{name} is not lost by `{why}`: {said}")));
        }
        Err(said) => return Err(said),
    };
    // A merge does not know the heads that llama.cpp orders rows by; the way back does.
    let off = if to == "gguf" { 0.0 } else { error(fixture, base, &there, bench) };
    if off > CLOSE {
        return Err(format!("{off} off after the conversion"));
    }
    let own = fixture.convention();
    let same = ![own, to].contains(&"gguf") && contents(&there) == contents(adapter);
    if own != "xlabs" {
        let back = convert(&there, own, base, output(bench, &format!("from-{to}"), own));
        let back = back.map_err(|said| format!("does not come back: {said}"))?;
        let off = error(fixture, base, &back, bench);
        if off > CLOSE {
            return Err(format!("{off} off after coming back"));
        }
        return Ok(match same {
            true if contents(&back) == contents(adapter) => '=',
            true => '>',
            false => '~',
        });
    }
    Ok(if same { '=' } else { '~' })
}

#[test]
fn every_family_goes_there_and_back_or_is_refused() {
    let mut found = format!("{:<26}", "convention/family");
    found.extend(TARGETS.map(|to| format!("{to:^11}")));
    let (mut found, mut faults) = (format!("{}\n", found.trim_end()), Vec::new());
    for fixture in fixtures() {
        let bench = Bench::new();
        let base = fixture.model.save(&bench);
        let adapter = fixture.save(&bench);
        let off = error(&fixture, &base, &adapter, &bench);
        if off > CLOSE {
            faults.push(format!("{}: {off} off as it is", fixture.name));
        }
        let mut row = format!("{:<26}", fixture.name);
        for to in TARGETS {
            let known = fixture.is_known_in(to);
            let sign = if known { sign(&fixture, &adapter, to, &base, &bench) } else { Ok(' ') };
            match sign {
                Ok(sign) => write!(row, "{sign:^11}").expect("text"),
                Err(what) => faults.push(format!("{} to {to}: {what}", fixture.name)),
            }
        }
        found.push_str(row.trim_end());
        found.push('\n');
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(found == TABLE, "what is possible is now\n{found}");
}
