//! Layouts of known architectures, as data: what each module of one layout is called, and which rows
//! it has, in the other.
//!
//! One file an architecture, listed once in [`ARCHITECTURES`]. A rule names a module in diffusers' (or
//! transformers') layout and in the checkpoint its authors published, and holds in both directions:
//! [`Catalogue`](super::catalogue::Catalogue) turns it into names that a base's tensors also answer to.

mod ace_step;
mod auraflow;
mod chroma;
mod clip;
mod cogvideox;
mod cosmos;
mod cosmos1;
mod cut;
mod ernie_image;
mod experts;
mod fibo2;
mod flux;
mod flux2;
mod flux3;
mod hidream;
mod hunyuan_image;
mod hunyuan_video;
mod hunyuan_video_1_5;
mod ideogram4;
mod kandinsky;
mod krea2;
mod language;
mod ltx;
mod ltx2;
mod ltx2_connectors;
mod lumina;
mod minimax_h3;
mod mochi;
mod omnigen2;
mod ovis_image;
mod pattern;
mod pixart;
mod qwen_image;
mod qwen_image_2_1;
mod releases;
mod sana;
mod sd3;
mod seen;
mod stable_audio;
mod stable_audio_3;
mod t5;
mod table;
mod unet;
mod wan;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use clip::is_turned;
pub(super) use cut::Cut;
pub(super) use ltx2_connectors::LTX2_CONNECTORS;
pub(super) use pattern::{capture, fill};
pub(super) use seen::{Body, Seen, Told};
use table::rules_of;

/// A module in both layouts: paths of parts, of which `{i}` stands for a number, `{*}` for any parts,
/// and `{e}` for each matrix of a stack.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Its path in diffusers or transformers.
    pub(super) split: String,
    /// The tensor that it is in, or part of.
    pub(super) published: String,
    /// Which part.
    pub(super) cut: Cut,
}

/// The two layouts of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// diffusers' or transformers'.
    Split,
    /// Its authors'.
    Published,
}

impl Rule {
    /// What a module is called on one side.
    pub(super) fn side(&self, side: Side) -> &str {
        match side {
            Side::Split => &self.split,
            Side::Published => &self.published,
        }
    }
}

/// The names of a base's tensors below one root, without `.weight`.
pub(super) type Names<'a> = BTreeSet<&'a str>;

/// One architecture.
pub(super) struct Architecture {
    /// What it is called, its file's name.
    pub(super) name: &'static str,
    /// Its rules as text (see `table.rs`), which a test reads line by line.
    #[cfg_attr(not(test), expect(dead_code, reason = "a static's own functions name its tables"))]
    tables: &'static [&'static str],
    /// The rules that hold for a base.
    rules: OfBase,
    /// What an adapter's modules are called in either layout, if they tell that they are of it.
    pub(super) told: fn(&Seen<'_>) -> Option<Told>,
}

/// How a base's tensors tell which rules hold for it.
enum OfBase {
    /// As an adapter of all of them would. No other denoiser's rules hold then.
    Told,
    /// By their names; no rules if it is of another architecture.
    Names(fn(&Names<'_>) -> Vec<Rule>),
    /// The same, of what may stand beside any other architecture.
    Beside(fn(&Names<'_>) -> Vec<Rule>),
}

/// The rules that hold for a base whose tensors below one root these are.
pub(super) fn rules_of_base(seen: &Seen<'_>) -> Vec<Rule> {
    let names: Names<'_> = seen.0.iter().map(|body| body.path).collect();
    let told = ARCHITECTURES
        .iter()
        .filter(|known| matches!(known.rules, OfBase::Told))
        .find_map(|known| (known.told)(seen));
    let mut rules = Vec::new();
    for known in &ARCHITECTURES {
        match known.rules {
            OfBase::Beside(find) => rules.extend(find(&names)),
            OfBase::Names(find) if told.is_none() => rules.extend(find(&names)),
            OfBase::Names(_) | OfBase::Told => {}
        }
    }
    if let Some(told) = told {
        rules.extend(told.rules.into_iter().chain(told.comfyui));
    }
    let between = between_published(&rules);
    rules.extend(between);
    rules
}

/// Modules that have two names whatever the architecture, whole under both, of the models that have these paths.
pub(super) fn renames(paths: &Names<'_>) -> Vec<Rule> {
    let beside = ARCHITECTURES.iter().filter_map(|known| match known.rules {
        OfBase::Beside(find) => Some(find(paths)),
        OfBase::Names(_) | OfBase::Told => None,
    });
    beside.flatten().filter(|rule| rule.cut == Cut::Whole).collect()
}

/// Rules between the names that several published layouts have for the same rows.
///
/// Of a module the first rule has its published name, the others have further ones. A further tensor
/// that has the same rows of the same modules is the first one by another name; one that joins tensors
/// that are whole in the first is made of those.
fn between_published(rules: &[Rule]) -> Vec<Rule> {
    let mut further: BTreeMap<&str, Vec<(&Rule, &Rule)>> = BTreeMap::new();
    let mut first: BTreeMap<&str, &Rule> = BTreeMap::new();
    for rule in rules {
        match first.get(rule.split.as_str()) {
            Some(known) if known.published != rule.published => {
                further.entry(&rule.published).or_default().push((known, rule));
            }
            Some(_) => {}
            None => {
                first.insert(&rule.split, rule);
            }
        }
    }
    let mut found = Vec::new();
    for (published, pairs) in further {
        let Some((known, _)) = pairs.first() else { continue };
        let same = |(a, b): &(&Rule, &Rule)| a.cut == b.cut && a.published == known.published;
        if pairs.iter().all(same) {
            let (split, published) = (known.published.clone(), published.to_owned());
            found.push(Rule { split, published, cut: Cut::Whole });
        } else if pairs.iter().all(|(known, _)| known.cut == Cut::Whole) {
            found.extend(pairs.iter().map(|(known, rule)| Rule {
                split: known.published.clone(),
                published: published.to_owned(),
                cut: rule.cut,
            }));
        }
    }
    found
}

/// An architecture whose adapters' names do not depend on the layout of a base.
fn untold(_: &Seen<'_>) -> Option<Told> {
    None
}

/// All architectures; of those that an adapter could be of, the first is taken: what has signs of its own
/// comes before those that share its names.
pub(super) static ARCHITECTURES: [&Architecture; 40] = [
    &kandinsky::ARCHITECTURE,
    &hidream::ARCHITECTURE,
    &flux2::ARCHITECTURE,
    &chroma::ARCHITECTURE,
    &flux3::ARCHITECTURE,
    &krea2::ARCHITECTURE,
    &ideogram4::ARCHITECTURE,
    &auraflow::ARCHITECTURE,
    &mochi::ARCHITECTURE,
    &minimax_h3::ARCHITECTURE,
    &ace_step::ARCHITECTURE,
    &cosmos1::ARCHITECTURE,
    &cosmos::ARCHITECTURE,
    &ltx2_connectors::ARCHITECTURE,
    &ltx2::ARCHITECTURE,
    &stable_audio::ARCHITECTURE,
    &stable_audio_3::ARCHITECTURE,
    &sana::ARCHITECTURE,
    &cogvideox::ARCHITECTURE,
    &ernie_image::ARCHITECTURE,
    &omnigen2::ARCHITECTURE,
    &fibo2::ARCHITECTURE,
    &qwen_image_2_1::ARCHITECTURE,
    &hunyuan_video_1_5::ARCHITECTURE,
    &hunyuan_image::ARCHITECTURE,
    &ovis_image::ARCHITECTURE,
    &ltx::ARCHITECTURE,
    &unet::ARCHITECTURE,
    &clip::ARCHITECTURE,
    &hunyuan_video::ARCHITECTURE,
    &qwen_image::ARCHITECTURE,
    &flux::ARCHITECTURE,
    &sd3::ARCHITECTURE,
    &pixart::ARCHITECTURE,
    &wan::ARCHITECTURE,
    &lumina::ARCHITECTURE,
    &t5::ARCHITECTURE,
    &language::ARCHITECTURE,
    &experts::ARCHITECTURE,
    &releases::ARCHITECTURE,
];

/// Whether a name starts so.
fn has(names: &Names<'_>, start: &str) -> bool {
    names.range(start..).next().is_some_and(|name| name.starts_with(start))
}

/// Whether any name fits the pattern.
fn fits(names: &Names<'_>, pattern: &str) -> bool {
    names.iter().any(|name| capture(pattern, name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_table_is_a_rule() {
        for known in ARCHITECTURES {
            for table in known.tables {
                assert_eq!(table::faults(table), Vec::<&str>::new(), "{}", known.name);
            }
        }
    }

    #[test]
    fn further_published_names_go_to_the_first() {
        let rules = rules_of(
            "a.{i}.{q,k} p.{i}.qk 1:1\nb q\nb.{x,y} r.{x,y}
            a.{i}.{q,k} other.{i}.qk 1:1\nb.{x,y} r.xy 1:1",
        );
        let found: Vec<(String, String, Cut)> =
            between_published(&rules).into_iter().map(|r| (r.split, r.published, r.cut)).collect();
        let rule = |a: &str, b: &str, cut| (a.to_owned(), b.to_owned(), cut);
        let expected = [
            rule("p.{i}.qk", "other.{i}.qk", Cut::Whole),
            rule("r.x", "r.xy", Cut::nth(0, 2)),
            rule("r.y", "r.xy", Cut::nth(1, 2)),
        ];
        assert_eq!(found, expected);
    }
}
