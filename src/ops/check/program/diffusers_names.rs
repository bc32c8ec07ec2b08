//! Which spellings of a model's modules diffusers converts (`loaders/lora_pipeline.py`,
//! `loaders/lora_conversion_utils.py`), as a table of text, one line a spelling:
//!
//! ```text
//! flux2 0.38 D lora_unet_  takes double_blocks|single_blocks  rest lost
//! ```
//!
//! The architecture, the first release that converts it so, the forms of the tensors (see [`Form`]), the
//! prefixes (`-` for none), and what comes of the modules below them: `takes`, `loses` and `refuses` name
//! paths, of which `*` stands for any part, `rest` says what of all others. `if` names parts of keys of
//! which one has to be in the file, or else all is lost; `blocks` what every block has to have, or the file
//! is refused; `alpha dropped` says that alphas are passed over.
//!
//! What no line has is lost, but for diffusers' own names, which are taken. The lines were found by running
//! the functions of diffusers 0.42.0 on adapters of all modules, of single kinds of them, and of blocks alone.

use std::collections::BTreeSet;

use crate::adapter::layout;
use crate::adapter::module::Module;
use crate::ops::check::place::Found;
use crate::ops::check::subject::{Subject, some};

const READINGS: &str = "
flux 0.33 D lora_unet_|diffusion_model. takes double_blocks|single_blocks loses img_in|txt_in|time_in|vector_in|guidance_in|final_layer rest refused
flux 0.33 D lora_transformer_ takes transformer_blocks.*.attn|single_transformer_blocks.*.attn|context_embedder|norm_out|proj_out|time_text_embed|x_embedder rest lost
flux 0.33 D transformer. rest taken alpha dropped
flux 0.35.2 Aa base_model.model. rest refused
chroma 0.33 D lora_unet_|diffusion_model. takes double_blocks|single_blocks loses img_in|txt_in|final_layer rest refused
chroma 0.33 D lora_transformer_ rest refused
chroma 0.33 D transformer. rest taken alpha dropped
chroma 0.35.2 Aa base_model.model. rest refused
flux2 0.36 A diffusion_model.|base_model.model. takes double_blocks|single_blocks|img_in|txt_in|time_in|guidance_in|final_layer|double_stream_modulation_img.lin|double_stream_modulation_txt.lin|single_stream_modulation.lin|transformer_blocks|single_transformer_blocks rest refused
flux2 0.36 a diffusion_model.|base_model.model. rest refused
flux2 0.38 D lora_unet_ takes double_blocks|single_blocks|img_in|txt_in|time_in|final_layer.linear rest lost
flux3 0.42 Aa diffusion_model. rest taken alpha dropped
ltx 0.34 Aa diffusion_model. loses patchify_proj|adaln_single rest taken alpha dropped
ltx2 0.37 Aa diffusion_model.|text_embedding_projection. rest taken alpha dropped
ltx2_connectors 0.37 Aa diffusion_model.|text_embedding_projection. rest taken alpha dropped
krea2 0.39 A diffusion_model.|base_model.model. takes blocks|txtfusion|first|last|tmlp|tproj|txtmlp rest refused
krea2 0.39 aD diffusion_model.|base_model.model. rest refused
ideogram4 0.39 AaD diffusion_model. takes layers.*.attention.qkv|layers.*.attention.o|layers.*.feed_forward|layers.*.adaln_modulation rest refused
ideogram4 0.39 AaD - if .attention.qkv. takes layers.*.attention.qkv|layers.*.attention.o|layers.*.feed_forward|layers.*.adaln_modulation rest refused
ideogram4 0.39 AaD base_model.model. if .attention.qkv. rest refused
anima 0.39 Aa diffusion_model. loses transformer_blocks rest taken alpha dropped
cosmos 0.39 Aa diffusion_model. rest unknown
hunyuan_video 0.33 A diffusion_model.|transformer.|- if img_attn_qkv refuses txt_in.individual_token_refiner.blocks.*.self_attn_qkv rest taken
hunyuan_video 0.33 aD diffusion_model.|transformer.|lora_unet_|- if img_attn_qkv rest refused
z_image 0.36 A diffusion_model. loses *.attention.qkv|*.attention.out|x_embedder|final_layer rest taken
z_image 0.36 a diffusion_model. refuses *.attention.qkv|*.attention.out loses x_embedder|final_layer rest taken
z_image 0.36 a base_model.model.|- rest refused
z_image 0.36 D diffusion_model.|- loses *.attention.qkv|x_embedder|final_layer rest taken
z_image 0.36 D lora_unet_ loses x_embedder|final_layer rest taken
z_image 0.36 aD transformer. rest lost
lumina2 0.33 A diffusion_model. if .attention.qkv. takes *.attention|*.feed_forward|*.adaLN_modulation refuses final_layer rest unknown
lumina2 0.33 aD diffusion_model. rest refused
ace_step 0.40 Aa base_model.model.|- if q_proj|k_proj loses proj_in.1|proj_out.1 rest taken alpha dropped
minimax_h3 0.40 AaD diffusion_model.|lora_unet_|- takes blocks|token_refiner.blocks|final_layer|video_patch_proj|audio_patch_proj|condition_proj|time_embedder.proj_in|time_embedder.proj_out rest refused
wan 0.33 A diffusion_model. takes blocks.*.self_attn|blocks.*.cross_attn|blocks.*.ffn.0|blocks.*.ffn.2|time_projection|text_embedding|time_embedding|img_emb|head.head rest refused
wan 0.33 aD diffusion_model. takes blocks.*.self_attn|blocks.*.cross_attn|blocks.*.ffn.0|blocks.*.ffn.2 rest refused
wan 0.34 D lora_unet_ takes blocks blocks self_attn.q|self_attn.k|self_attn.v|self_attn.o|cross_attn.q|cross_attn.k|cross_attn.v|cross_attn.o|ffn.0|ffn.2 rest refused
qwen_image 0.35.2 AaD diffusion_model.|lora_unet_ rest taken
qwen_image 0.35.2 aD - rest taken
qwen_image 0.35.2 aD transformer. rest lost
hidream 0.34 Aa diffusion_model. rest taken alpha dropped
ernie_image 0.39 Aa diffusion_model.|base_model.model. rest taken alpha dropped
unet 0.33 AaD lora_unet_|unet. rest taken
clip 0.33 AaD lora_te|text_encoder rest taken
";

/// Models whose pipelines have text encoders that take adapters.
const ENCODERS: [&str; 6] = ["unet", "clip", "t5", "flux", "chroma", "sd3"];

/// Models whose alphas go with factors in diffusers' own names.
const ALPHAS: [&str; 4] = ["flux", "chroma", "unet", "clip"];

/// The releases with which lines of the table begin, but for the oldest that is judged.
pub(super) const RELEASES: [&str; 8] =
    ["0.34", "0.35.2", "0.36", "0.37", "0.38", "0.39", "0.40", "0.42"];

/// What comes of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Taken,
    /// Passed over with at most a warning.
    Lost,
    /// The file is refused for it.
    Refused,
    Unknown,
}

/// One line of the table.
#[derive(Default)]
struct Reading {
    model: &'static str,
    since: &'static str,
    forms: &'static str,
    prefixes: Vec<&'static str>,
    takes: Vec<&'static str>,
    loses: Vec<&'static str>,
    refuses: Vec<&'static str>,
    /// Parts of keys of which one has to be there.
    wanted: Vec<&'static str>,
    /// What every block has to have.
    blocks: Vec<&'static str>,
    rest: Option<Fate>,
    drops_alpha: bool,
}

fn readings() -> impl Iterator<Item = Reading> {
    READINGS.lines().filter(|line| !line.is_empty()).filter_map(parse)
}

fn parse(line: &'static str) -> Option<Reading> {
    let mut words = line.split_whitespace();
    let (model, since, forms) = (words.next()?, words.next()?, words.next()?);
    let prefixes = words.next()?.split('|').collect();
    let mut reading = Reading { model, since, forms, prefixes, ..Reading::default() };
    while let Some(keyword) = words.next() {
        let said: Vec<&str> = words.next()?.split('|').collect();
        match keyword {
            "takes" => reading.takes = said,
            "loses" => reading.loses = said,
            "refuses" => reading.refuses = said,
            "if" => reading.wanted = said,
            "blocks" => reading.blocks = said,
            "alpha" => reading.drops_alpha = true,
            "rest" => {
                reading.rest = Some(match said.as_slice() {
                    ["taken"] => Fate::Taken,
                    ["lost"] => Fate::Lost,
                    ["refused"] => Fate::Refused,
                    ["unknown"] => Fate::Unknown,
                    _ => return None,
                });
            }
            _ => return None,
        }
    }
    Some(reading)
}

/// The form of a file's tensors: `A` for `lora_A` and `lora_B`, `a` for these with alphas beside them,
/// `D` for `lora_down` and `lora_up`, with alphas or without.
struct Form(char);

impl Form {
    fn of(subject: &Subject<'_>) -> Self {
        let any = |part: &str| subject.adapter.file.names().any(|name| name.contains(part));
        Self(match (any(".lora_A."), any(".alpha")) {
            (true, false) => 'A',
            (true, true) => 'a',
            (false, _) => 'D',
        })
    }
}

/// The prefixes that tell spellings apart.
const PREFIXES: [&str; 12] = [
    "diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "text_embedding_projection.",
    "connectors.",
    "unet.",
    "prior.",
    "lora_prior_",
    "lora_te",
    "text_encoder",
];

/// A module's prefix and its path below.
fn below<'a>(subject: &Subject<'_>, module: &'a Module) -> (&'static str, &'a str) {
    let name = module.name.as_str();
    if subject.adapter.convention.name == "peft" {
        return ("base_model.model.", name);
    }
    let found = PREFIXES.iter().find_map(|prefix| Some((*prefix, name.strip_prefix(prefix)?)));
    found.unwrap_or(("-", name))
}

/// Whether a path begins with the parts of a pattern, dots of which are underscores in flat names.
fn fits(path: &str, pattern: &str, flat: bool) -> bool {
    let (dot, own) =
        if flat { ('_', pattern.replace('.', "_")) } else { ('.', pattern.to_owned()) };
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(dot);
    match own.split_once('*') {
        None => path.strip_prefix(own.as_str()).is_some_and(ends),
        Some((start, end)) => path.strip_prefix(start).is_some_and(|rest| {
            rest.match_indices(end).any(|(at, _)| rest.get(at + end.len()..).is_some_and(ends))
        }),
    }
}

/// The one model that an adapter is of, as the table calls it; none if nothing tells.
fn model(subject: &Subject<'_>) -> Option<&'static str> {
    let parts = ["clip", "t5", "ltx2_connectors"];
    let whole = subject.models.iter().find(|model| !parts.contains(*model));
    let found = *whole.or_else(|| subject.models.first())?;
    if found != "lumina" {
        let anima = subject.adapter.modules.iter().any(|m| m.name.contains("llm_adapter"));
        return Some(if found == "cosmos" && anima { "anima" } else { found });
    }
    let lumina2 = |module: &Module| {
        [".attn.", "_attn_to_", "linear_1"].iter().any(|part| module.name.contains(part))
            || module.inputs == 2304
    };
    Some(if subject.adapter.modules.iter().any(lumina2) { "lumina2" } else { "z_image" })
}

/// What comes of the modules, the line of the table that says it, and whether alphas count; `None` if
/// nothing is known of the model.
struct Outcome {
    modules: Vec<Fate>,
    since: &'static str,
    drops_alpha: bool,
}

fn outcome(subject: &Subject<'_>) -> Option<Outcome> {
    let own = ["kohya", "comfyui", "diffusers", "peft"].contains(&subject.adapter.convention.name);
    let model = model(subject).filter(|_| own)?;
    let Form(form) = Form::of(subject);
    let published: BTreeSet<&str> = layout::published(subject.adapter);
    let key = |part: &&str| subject.adapter.file.names().any(|name| name.contains(*part));
    let mut outcome = Outcome { modules: Vec::new(), since: "", drops_alpha: false };
    let readings: Vec<Reading> = readings().filter(|reading| reading.model == model).collect();
    for module in &subject.adapter.modules {
        let (prefix, path) = below(subject, module);
        if prefix == "lora_te" || prefix == "text_encoder" {
            let taken = ENCODERS.contains(&model);
            outcome.modules.push(if taken { Fate::Taken } else { Fate::Lost });
            continue;
        }
        let found = readings.iter().find(|reading| {
            let wanted = reading.wanted.is_empty() || reading.wanted.iter().any(key);
            wanted && reading.forms.contains(form) && reading.prefixes.contains(&prefix)
        });
        let Some(reading) = found else {
            // diffusers' own names, under the component's.
            let component = ["transformer.", "unet.", "prior.", "connectors."].contains(&prefix);
            let names = component && !published.contains(module.name.as_str());
            outcome.drops_alpha |= names && form == 'a' && !ALPHAS.contains(&model);
            outcome.modules.push(match (names, form) {
                (true, 'D') if prefix == "transformer." => Fate::Refused,
                (true, _) => Fate::Taken,
                (false, _) => Fate::Lost,
            });
            continue;
        };
        let flat = prefix.ends_with('_');
        let any = |list: &[&str]| list.iter().any(|pattern| fits(path, pattern, flat));
        outcome.since = reading.since;
        outcome.drops_alpha |= reading.drops_alpha && form != 'A';
        outcome.modules.push(if any(&reading.refuses) {
            Fate::Refused
        } else if any(&reading.loses) {
            Fate::Lost
        } else if any(&reading.takes) {
            Fate::Taken
        } else {
            reading.rest.unwrap_or(Fate::Lost)
        });
        if !reading.blocks.is_empty() && !has_blocks(subject, &reading.blocks) {
            outcome.modules.pop();
            outcome.modules.push(Fate::Refused);
        }
    }
    Some(outcome)
}

/// Whether every block from 0 on has all of these modules, in flat names.
fn has_blocks(subject: &Subject<'_>, parts: &[&str]) -> bool {
    let names: BTreeSet<&str> = subject.adapter.modules.iter().map(|m| m.name.as_str()).collect();
    let number = |name: &&str| name.split("blocks_").nth(1)?.split('_').next().map(str::to_owned);
    let blocks: BTreeSet<String> = names.iter().filter_map(number).collect();
    (0..blocks.len()).all(|block| {
        parts.iter().all(|part| {
            names.contains(format!("lora_unet_blocks_{block}_{}", part.replace('.', "_")).as_str())
        })
    })
}

/// Modules of plain factors of which this comes.
pub(super) fn modules(subject: &Subject<'_>, fate: Fate) -> Found {
    let outcome = outcome(subject)?;
    let pairs = subject.adapter.modules.iter().zip(outcome.modules);
    let found =
        pairs.filter(|(module, own)| *own == fate && ["lora", "dora"].contains(&module.family));
    some(found.map(|(module, _)| module.name.as_str().into()).collect())
}

/// Modules that are converted from this release on, and lost before.
pub(super) fn before(subject: &Subject<'_>, release: &str) -> Found {
    outcome(subject).filter(|outcome| outcome.since == release)?;
    modules(subject, Fate::Taken)
}

/// Modules whose alphas are passed over.
pub(super) fn dropped_alphas(subject: &Subject<'_>) -> Found {
    outcome(subject).filter(|outcome| outcome.drops_alpha)?;
    subject.scaled(|_| 1.0)
}

/// Whether a file of PEFT's names is one that is converted.
pub(super) fn reads_peft(subject: &Subject<'_>) -> bool {
    let Some(model) = model(subject) else { return false };
    readings()
        .any(|reading| reading.model == model && reading.prefixes.contains(&"base_model.model."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = READINGS.lines().filter(|line| !line.is_empty());
        let wrong: Vec<&str> = lines.clone().filter(|line| parse(line).is_none()).collect();
        assert_eq!(wrong, Vec::<&str>::new());
        for reading in readings() {
            assert!(reading.since == "0.33" || RELEASES.contains(&reading.since));
            assert!(reading.rest.is_some() && !reading.prefixes.is_empty());
        }
    }

    #[test]
    fn patterns_are_whole_parts_of_paths() {
        assert!(fits("layers.3.attention.o", "layers.*.attention.o", false));
        assert!(!fits("layers.3.attention.out", "layers.*.attention.o", false));
        assert!(fits("layers_3_attention_qkv", "*.attention.qkv", true));
        assert!(fits(
            "double_stream_modulation_img.lin",
            "double_stream_modulation_img.lin",
            false
        ));
        assert!(!fits(
            "double_stream_modulation_img.linear",
            "double_stream_modulation_img.lin",
            false
        ));
    }
}
