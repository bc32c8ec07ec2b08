//! The model card of a result: a page of Markdown with the front matter that the Hugging Face Hub reads, and what it
//! was made of, how, and what came of it in figures.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Locate, Result, one_line};
use crate::format::access::head_of;
use crate::format::staging::check_target;
use crate::format::{Access, Checkpoint, Staging};
use crate::ops::shared::provenance;

/// What the card of a directory is called.
pub(in crate::ops) const CARD_NAME: &str = "README.md";
/// What tells a card of this tool.
const MARK: &str = "<!-- made by lora-tool -->";
/// A README is read so far for its licence.
const HEAD: u64 = 64 << 10;

/// An input of a result.
#[derive(Debug, Clone)]
pub(in crate::ops) struct CardInput {
    /// What it is called, without its folders.
    pub(in crate::ops) name: String,
    /// Its weight in words.
    pub(in crate::ops) weight: String,
    /// What of it was used, in words.
    pub(in crate::ops) used: String,
    /// The licence that it names.
    pub(in crate::ops) licence: Option<String>,
}

/// What a card says.
#[derive(Debug, Clone, Default)]
pub(in crate::ops) struct Card {
    /// The result's name.
    pub(in crate::ops) title: String,
    /// What it is, in a sentence.
    pub(in crate::ops) summary: String,
    /// The models it is made of, or for, by name.
    pub(in crate::ops) bases: Vec<String>,
    /// What it is to them, in the Hub's word.
    pub(in crate::ops) relation: &'static str,
    /// The library that loads it, in the Hub's word.
    pub(in crate::ops) library: Option<&'static str>,
    /// The licence that the base names.
    pub(in crate::ops) base_licence: Option<String>,
    /// The adapters, in order.
    pub(in crate::ops) inputs: Vec<CardInput>,
    /// How it was made: labels and values.
    pub(in crate::ops) how: Vec<(&'static str, String)>,
    /// What came of it: labels and values.
    pub(in crate::ops) figures: Vec<(&'static str, String)>,
}

/// Where the card of an output stands: in a directory, or beside a file under the file's name.
pub(in crate::ops) fn place(output: &Path, one_file: bool) -> PathBuf {
    if one_file { output.with_extension("md") } else { output.join(CARD_NAME) }
}

/// Fails if something stands where the card of an output that is one file would.
///
/// # Errors
/// Those of [`check_target`].
pub(in crate::ops) fn check(output: &Path, one_file: bool, force: bool) -> Result<()> {
    if one_file { check_target(&place(output, true), force) } else { Ok(()) }
}

/// Whether a file is a card that was written here.
pub(in crate::ops) fn is_card(path: &Path) -> bool {
    head_of(path, HEAD).is_some_and(|text| text.contains(MARK))
}

/// The licence that an adapter or a checkpoint names: in its file's header, or in the front matter of a README in
/// its directory.
pub(in crate::ops) fn licence(path: &Path) -> Option<String> {
    if path.is_dir()
        && let Some(named) =
            head_of(&path.join(CARD_NAME), HEAD).as_deref().and_then(of_front_matter)
    {
        return Some(named);
    }
    let file = Checkpoint::open(path, Access::Read).ok()?;
    let header = file.shards.first()?.header.metadata.as_ref()?;
    let entry = ["modelspec.license", "license"].into_iter().find_map(|key| header.get(key));
    entry.filter(|text| !text.is_empty()).cloned()
}

/// `license: mit` between the first two lines of dashes; a `license_name` says it better than `other`.
fn of_front_matter(text: &str) -> Option<String> {
    let matter = text.trim_start().strip_prefix("---")?;
    let (matter, _) = matter.split_once("\n---")?;
    let field = |name: &str| {
        let value = matter.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let value = value.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    match (field("license"), field("license_name")) {
        (Some(licence), Some(name)) if licence == "other" => Some(name),
        (licence, name) => licence.or(name),
    }
}

/// Puts the card beside an output that is whole and not yet in place: into the directory that is being made, or as a
/// file of its own.
///
/// # Errors
/// I/O, and a file that is there already.
pub(in crate::ops) fn write(
    card: &Card,
    staging: &Staging,
    (output, one_file): (&Path, bool),
    force: bool,
) -> Result<()> {
    let text = card.text();
    if !one_file {
        return staging.write(CARD_NAME, text.as_bytes());
    }
    let path = place(output, true);
    if path == output {
        let reason = "the model card would stand in its place; give it another ending";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(output);
    }
    let file = Staging::file(&path, force)?;
    file.write("", text.as_bytes())?;
    file.commit()
}

impl Card {
    /// The licences that inputs name, with whose each is.
    fn licences(&self) -> Vec<(&str, Option<&str>)> {
        let base = self.bases.first().filter(|_| self.relation == "merge");
        let base = base.map(|name| (name.as_str(), self.base_licence.as_deref()));
        let inputs =
            self.inputs.iter().map(|input| (input.name.as_str(), input.licence.as_deref()));
        base.into_iter().chain(inputs).collect()
    }

    /// The one licence that all inputs name.
    fn licence(&self) -> Option<&str> {
        let named: Option<BTreeSet<&str>> =
            self.licences().into_iter().map(|(_, licence)| licence).collect();
        match named?.into_iter().collect::<Vec<_>>().as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let mut text = self.front_matter();
        let _ = writeln!(text, "{MARK}\n\n# {}\n\n{}\n", plain(&self.title), plain(&self.summary));
        text.push_str("| adapter | weight | used | licence |\n|---|---|---|---|\n");
        for input in &self.inputs {
            let licence = input.licence.as_deref().unwrap_or("not named");
            let cells = [&input.name, &input.weight, &input.used, licence].map(plain);
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        for (heading, lines) in [("How it was made", &self.how), ("Figures", &self.figures)] {
            let _ = writeln!(text, "\n## {heading}\n");
            for (label, value) in lines {
                let _ = writeln!(text, "- {label}: {}", plain(value));
            }
        }
        text.push_str("\n## Licences\n\n");
        text.push_str(match self.licence() {
            Some(_) => "All inputs name the same licence:\n\n",
            None => {
                "The inputs name these licences. What holds of the result is for you to find out: a result of several has \
                 to keep to all of them.\n\n"
            }
        });
        for (name, licence) in self.licences() {
            let licence = licence.unwrap_or("names none in its header or README");
            let _ = writeln!(text, "- {}: {}", plain(name), plain(licence));
        }
        text
    }

    /// What the Hub reads. Names that are no repository's are left out of it, as is a licence that not all inputs name.
    fn front_matter(&self) -> String {
        let mut text = String::from("---\n");
        let repository = |name: &&String| {
            let parts: Vec<_> = name.split('/').collect();
            let sound = |part: &&str| {
                !part.is_empty()
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            parts.len() == 2 && parts.iter().all(sound)
        };
        let bases: BTreeSet<&String> = self.bases.iter().filter(repository).collect();
        if !bases.is_empty() {
            text.push_str("base_model:\n");
            for base in bases {
                let _ = writeln!(text, "- {base}");
            }
            let _ = writeln!(text, "base_model_relation: {}", self.relation);
        }
        if let Some(licence) = self.licence() {
            let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let id = licence.to_lowercase();
            match id.chars().all(word) {
                true => drop(writeln!(text, "license: {id}")),
                false => text.push_str("license: other\n"),
            }
        }
        if let Some(library) = self.library {
            let _ = writeln!(text, "library_name: {library}");
        }
        text.push_str("tags:\n- lora\n- merge\n---\n");
        text
    }
}

/// Text that stays in its cell and its line, and is no markup.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        if matches!(c, '|' | '<' | '`' | '[' | ']' | '*' | '\\') {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

/// What a base is called, without a revision.
pub(in crate::ops) fn base_name(path: &Path) -> String {
    let name = provenance::name(path);
    name.split_once('@').map_or(name.clone(), |(name, _)| name.to_owned())
}

/// A share in per cent.
pub(in crate::ops) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.01 => "below 0.01 %".to_owned(),
        percent => format!("{percent:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(licences: [Option<&str>; 2]) -> Card {
        let input = |licence: Option<&str>| CardInput {
            name: "a|b".to_owned(),
            weight: "1".to_owned(),
            used: "all".to_owned(),
            licence: licence.map(str::to_owned),
        };
        Card {
            title: "mixed".to_owned(),
            bases: vec!["org/base".to_owned(), "/home/me/base".to_owned()],
            relation: "adapter",
            inputs: licences.map(input).to_vec(),
            ..Card::default()
        }
    }

    #[test]
    fn a_licence_is_named_where_all_inputs_name_it() {
        let text = card([Some("MIT"), Some("MIT")]).text();
        assert!(text.starts_with(
            "---\nbase_model:\n- org/base\nbase_model_relation: adapter\nlicense: mit\n"
        ));
        assert!(!text.contains("/home/me"), "{text}");
        assert!(text.contains("| a\\|b | 1 | all | MIT |"), "{text}");
        for licences in [[Some("mit"), Some("apache-2.0")], [Some("mit"), None]] {
            assert!(!card(licences).text().contains("license:"), "{licences:?}");
        }
        assert!(card([Some("a: b"), Some("a: b")]).text().contains("license: other\n"));
    }

    #[test]
    fn front_matter_names_a_licence() {
        let of = |text: &str| of_front_matter(text);
        assert_eq!(
            of("---\nlicense: apache-2.0\ntags: x\n---\n# A"),
            Some("apache-2.0".to_owned())
        );
        assert_eq!(of("---\nlicense: other\nlicense_name: flux\n---\n"), Some("flux".to_owned()));
        assert_eq!(of("# A\nlicense: mit\n"), None);
    }
}
