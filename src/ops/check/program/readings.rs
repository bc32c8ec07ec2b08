//! What comes of the spellings of models' modules in a program that converts or maps names, as a table of
//! text, one line a spelling:
//!
//! ```text
//! flux2 0.38 D lora_unet_  takes double_blocks|single_blocks  rest lost
//! ```
//!
//! The architecture, the first release that converts it so, the forms of the tensors (see [`Form`]), the
//! prefixes (`-` for none), and what comes of the modules below them: `takes`, `loses` and `refuses` name
//! paths, of which `*` stands for any parts, `rest` says what of all others. `names` says which layout's
//! names are known, `published` or `diffusers`; those of the other alone are lost. `if` names parts of keys
//! of which one has to be in the file, or the line does not hold; `blocks` what every block has to have, or
//! the file is refused; `alpha dropped` says that alphas are passed over.

use crate::adapter::module::Module;
use crate::ops::check::subject::Subject;

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

/// Whose names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Diffusers,
    Published,
}

/// One line of the table.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) since: &'static str,
    pub(super) forms: &'static str,
    pub(super) prefixes: Vec<&'static str>,
    pub(super) takes: Vec<&'static str>,
    pub(super) loses: Vec<&'static str>,
    pub(super) refuses: Vec<&'static str>,
    /// Parts of keys of which one has to be there.
    pub(super) wanted: Vec<&'static str>,
    /// What every block has to have.
    pub(super) blocks: Vec<&'static str>,
    /// The layout whose names alone are lost.
    pub(super) loses_side: Option<Layout>,
    pub(super) rest: Option<Fate>,
    pub(super) drops_alpha: bool,
}

/// The lines of a table that are of this model.
pub(super) fn readings_of(table: &'static str, model: &str) -> Vec<Reading> {
    let lines = table.lines().filter(|line| line.split(' ').next() == Some(model));
    lines.filter_map(parse).collect()
}

pub(super) fn parse(line: &'static str) -> Option<Reading> {
    let mut words = line.split_whitespace();
    let (_model, since, forms) = (words.next()?, words.next()?, words.next()?);
    let prefixes = words.next()?.split('|').collect();
    let mut reading = Reading { since, forms, prefixes, ..Reading::default() };
    while let Some(keyword) = words.next() {
        let said: Vec<&str> = words.next()?.split('|').collect();
        match keyword {
            "takes" => reading.takes = said,
            "loses" => reading.loses = said,
            "refuses" => reading.refuses = said,
            "if" => reading.wanted = said,
            "blocks" => reading.blocks = said,
            "alpha" => reading.drops_alpha = true,
            "names" => {
                reading.loses_side = Some(match said.as_slice() {
                    ["published"] => Layout::Diffusers,
                    ["diffusers"] => Layout::Published,
                    _ => return None,
                });
            }
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
pub(super) struct Form(pub(super) char);

impl Form {
    pub(super) fn of(subject: &Subject<'_>) -> Self {
        let any = |part: &str| subject.adapter.file.names().any(|name| name.contains(part));
        Self(match (any(".lora_A."), any(".alpha")) {
            (true, false) => 'A',
            (true, true) => 'a',
            (false, _) => 'D',
        })
    }
}

/// The prefixes that tell spellings apart.
const PREFIXES: [&str; 13] = [
    "diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "text_embedding_projection.",
    "connectors.",
    "text_conditioner.",
    "unet.",
    "prior.",
    "lora_prior_",
    "lora_te",
    "text_encoder",
];

/// A module's prefix and its path below.
pub(super) fn below<'a>(subject: &Subject<'_>, module: &'a Module) -> (&'static str, &'a str) {
    let name = module.name.as_str();
    if subject.adapter.convention.name == "peft" {
        return ("base_model.model.", name);
    }
    let found = PREFIXES.iter().find_map(|prefix| Some((*prefix, name.strip_prefix(prefix)?)));
    found.unwrap_or(("-", name))
}

/// Whether a path begins with the parts of a pattern, dots of which are underscores in flat names.
pub(super) fn fits(path: &str, pattern: &str, flat: bool) -> bool {
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

impl Reading {
    /// Whether the line is about modules of this prefix in a file of this form and of these keys.
    pub(super) fn holds(&self, subject: &Subject<'_>, form: char, prefix: &str) -> bool {
        let key = |part: &&str| subject.adapter.file.names().any(|name| name.contains(*part));
        let wanted = self.wanted.is_empty() || self.wanted.iter().any(key);
        wanted && self.forms.contains(form) && self.prefixes.contains(&prefix)
    }

    /// What it says of a path.
    pub(super) fn fate(&self, path: &str, flat: bool) -> Fate {
        let any = |list: &[&str]| list.iter().any(|pattern| fits(path, pattern, flat));
        if any(&self.refuses) {
            Fate::Refused
        } else if any(&self.loses) {
            Fate::Lost
        } else if any(&self.takes) {
            Fate::Taken
        } else {
            self.rest.unwrap_or(Fate::Lost)
        }
    }
}

/// The one model that an adapter is of, as the table calls it; none if nothing tells.
pub(super) fn model(subject: &Subject<'_>) -> Option<&'static str> {
    let parts = ["clip", "t5", "ltx2_connectors", "anima"];
    let whole = subject.models.iter().find(|model| !parts.contains(*model));
    let found = *whole.or_else(|| subject.models.first())?;
    if found != "lumina" {
        // The body is Cosmos', the text conditioner is not.
        let anima = found == "cosmos" && subject.models.contains("anima");
        return Some(if anima { "anima" } else { found });
    }
    let lumina2 = |module: &Module| {
        [".attn.", "_attn_to_", "linear_1"].iter().any(|part| module.name.contains(part))
            || module.inputs == 2304
    };
    Some(if subject.adapter.modules.iter().any(lumina2) { "lumina2" } else { "z_image" })
}

#[cfg(test)]
mod tests {
    use super::*;

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
