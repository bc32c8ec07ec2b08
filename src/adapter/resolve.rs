//! Which base tensor a name of the adapter means, by what stands before a layer's name.
//!
//! Adapters and bases of one architecture differ in what stands before a layer's name: wrappers of
//! transformers (`model.`, `language_model.`), a root of all names (`bert.`), a pipeline's component
//! directory. Wrappers that are known are looked through, part by part ([`crate::weight::root`]). What is not
//! known may be one root, inserted or dropped, the same for all names of an adapter: the one under which
//! every name exists in the base and fits by its shape. Two that do are an error.

use std::collections::{BTreeMap, BTreeSet};

use super::scope::{Scope, located, scope_of};
use crate::error::{ErrorKind, Result, UnmatchedName};
use crate::weight::root::plain;

/// Prefix rules of one rewriting, tried in order; a name that starts with none stays as it is.
type Rules = Vec<(String, String)>;

/// Whether a wanted name, by its number, may be the base's of this name: of shapes that go together.
pub(super) type Fits<'a> = &'a dyn Fn(usize, &str) -> bool;

/// A name that the base must have, in the forms it may be stored under.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// What to call it in messages.
    pub(crate) label: String,
    /// Stored names, the likeliest first.
    pub(crate) stored: Vec<String>,
}

/// What became of the wanted names: for each, the base's name for it.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// One entry for each wanted name.
    pub(crate) names: Vec<Option<String>>,
}

/// Finds the base's names for the wanted ones: as they are, without the wrappers that are known, or
/// under one root. Where not all are found, the way that finds most.
///
/// # Errors
/// [`ErrorKind::Ambiguous`] if two ways are equally good and lead to different tensors.
pub(super) fn resolve(
    wanted: &[Wanted],
    base: &BTreeSet<&str>,
    fits: Fits<'_>,
) -> Result<Resolved> {
    let as_they_are = exact(wanted, base);
    if as_they_are.complete() {
        return Ok(as_they_are);
    }
    let (unwrapped, unsure) = unwrapped(wanted, base, fits);
    if unwrapped.complete() && unwrapped.fits(fits) {
        return Ok(unwrapped);
    }
    let rooted = rooted(wanted, base, fits)?;
    if let Some(found) = rooted.as_ref().filter(|found| found.complete() && found.fits(fits)) {
        return Ok(found.clone());
    }
    // Names whose shapes do not go together are for whoever compares those to explain.
    let best = as_they_are.or(unwrapped);
    let best = match rooted {
        Some(rooted) => best.or(rooted),
        None => best,
    };
    match unsure {
        Some((first, second)) if !best.complete() => {
            Err(ErrorKind::Ambiguous { first, second }.into())
        }
        _ => Ok(best),
    }
}

/// The wanted names without their wrappers, and two names of the base that are the same without theirs,
/// where that leaves a name undecided.
fn unwrapped(
    wanted: &[Wanted],
    base: &BTreeSet<&str>,
    fits: Fits<'_>,
) -> (Resolved, Option<(String, String)>) {
    let mut by_plain: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in base {
        by_plain.entry(plain(name)).or_default().push(name);
    }
    let mut unsure = None;
    let mut locate = |at: usize, stored: &String| -> Option<String> {
        if base.contains(stored.as_str()) {
            return Some(stored.clone());
        }
        let found = by_plain.get(&plain(stored))?;
        let fitting: Vec<&&str> = found.iter().filter(|name| fits(at, name)).collect();
        match (fitting.as_slice(), found.as_slice()) {
            ([only], _) => Some((**only).to_owned()),
            ([], [only]) => Some((*only).to_owned()),
            ([first, second, ..], _) => {
                unsure = Some(((**first).to_owned(), (**second).to_owned()));
                None
            }
            _ => None,
        }
    };
    let mut names = Vec::with_capacity(wanted.len());
    for (at, wanted) in wanted.iter().enumerate() {
        names.push(wanted.stored.iter().find_map(|stored| locate(at, stored)));
    }
    (Resolved { names }, unsure)
}

/// The wanted names under one root that all have in the base, the longest kept rest first; else those of
/// the root that has most.
fn rooted(wanted: &[Wanted], base: &BTreeSet<&str>, fits: Fits<'_>) -> Result<Option<Resolved>> {
    let mut complete: Option<(usize, Resolved)> = None;
    let mut best: Option<Resolved> = None;
    for (length, rules) in candidates(wanted, base) {
        let found = apply(&rules, wanted, base);
        if !found.complete() || !found.fits(fits) {
            best = Some(best.map_or(found.clone(), |best| best.or(found)));
            continue;
        }
        match &complete {
            Some((longest, _)) if length < *longest => break,
            Some((_, first)) if first.names != found.names => return Err(ambiguous(first, &found)),
            Some(_) => {}
            None => complete = Some((length, found)),
        }
    }
    Ok(complete.map(|(_, found)| found).or(best))
}

/// The wanted names that the base has as they are.
pub(crate) fn exact(wanted: &[Wanted], base: &BTreeSet<&str>) -> Resolved {
    apply(&Vec::new(), wanted, base)
}

fn ambiguous(first: &Resolved, second: &Resolved) -> crate::error::Error {
    let differing = first.names.iter().zip(&second.names).find(|(a, b)| a != b);
    let (a, b) = differing.map_or((None, None), |(a, b)| (a.clone(), b.clone()));
    ErrorKind::Ambiguous { first: a.unwrap_or_default(), second: b.unwrap_or_default() }.into()
}

impl Resolved {
    /// Whether every name has its place.
    pub(crate) fn complete(&self) -> bool {
        self.names.iter().all(Option::is_some)
    }

    /// Whether every name that was found may be it by its shape.
    pub(super) fn fits(&self, fits: Fits<'_>) -> bool {
        let mut found = self.names.iter().enumerate();
        found.all(|(at, name)| name.as_ref().is_none_or(|name| fits(at, name)))
    }

    fn count(&self) -> usize {
        self.names.iter().flatten().count()
    }

    /// The one that found more; itself if neither did.
    pub(crate) fn or(self, other: Self) -> Self {
        if other.count() > self.count() { other } else { self }
    }
}

fn apply(rules: &Rules, wanted: &[Wanted], base: &BTreeSet<&str>) -> Resolved {
    let locate = |name: &String| {
        let renamed = rules
            .iter()
            .find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from.as_str())?)));
        let renamed = renamed.unwrap_or_else(|| name.clone());
        base.contains(renamed.as_str()).then_some(renamed)
    };
    Resolved { names: wanted.iter().map(|wanted| wanted.stored.iter().find_map(locate)).collect() }
}

/// Rewritings that the names themselves suggest: for a few wanted names, every way to drop leading
/// parts and put other ones of the base before the rest; the longest kept rest first.
fn candidates(wanted: &[Wanted], base: &BTreeSet<&str>) -> Vec<(usize, Rules)> {
    const PROBES: usize = 5;
    // Shorter rests (`0.weight`) fit anywhere and prove nothing.
    const LEAST_KEPT: usize = 3;
    let step = (wanted.len() / PROBES).max(1);
    let mut found: BTreeSet<(usize, String, String)> = BTreeSet::new();
    for probe in wanted.iter().step_by(step).take(PROBES + 1) {
        for name in &probe.stored {
            let parts: Vec<&str> = name.split('.').collect();
            let dropped = parts.len().saturating_sub(LEAST_KEPT).max(usize::from(parts.len() == 2));
            for drop in 0..=dropped.min(parts.len().saturating_sub(2)) {
                let rest = parts.get(drop..).unwrap_or_default().join(".");
                let from = name.strip_suffix(rest.as_str()).unwrap_or_default();
                // A number is a layer's or an expert's: without it the rest is any of them.
                if from.split('.').any(is_number) {
                    break;
                }
                let alike = base.iter().filter(|base_name| may_be_in_one_part(name, base_name));
                for base_name in alike.filter_map(|base_name| base_name.strip_suffix(rest.as_str()))
                {
                    let whole = base_name.is_empty() || base_name.ends_with(['.', '/']);
                    if whole && !swaps(from, base_name) {
                        found.insert((parts.len() - drop, from.to_owned(), base_name.to_owned()));
                    }
                }
            }
        }
    }
    let rules = found.into_iter().rev();
    rules.map(|(length, from, to)| (length, vec![(from, to)])).collect()
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether two names are of one part of a diffusion model, as far as they say.
fn may_be_in_one_part(name: &str, base: &str) -> bool {
    let (of_name, of_base) = (located(name).0, scope_of(base).0);
    of_name == of_base || of_name == Scope::Any || of_base == Scope::Any
}

/// Whether a rewriting would put one part of a model in another's place, a decoder in an encoder's:
/// wrappers come and go, and only a component's directory may stand for a name.
pub(super) fn swaps(from: &str, to: &str) -> bool {
    let ends = |a: &str, b: &str| {
        a.strip_suffix(b).is_some_and(|above| above.is_empty() || above.ends_with(['.', '/', '_']))
    };
    let within = |a: &str, b: &str| a.starts_with(b) || ends(a, b);
    !(to.ends_with('/') || within(from, to) || within(to, from))
}

/// The wanted names without a place, each with the base's names that look most like it.
pub(crate) fn unmatched(
    wanted: &[Wanted],
    resolved: &Resolved,
    base: &BTreeSet<&str>,
) -> Vec<UnmatchedName> {
    // Looking for neighbours costs a walk over the base; a list that long is not read anyway.
    const WITH_NEIGHBOURS: usize = 16;
    let missing = wanted.iter().zip(&resolved.names).filter(|(_, name)| name.is_none());
    missing
        .enumerate()
        .map(|(at, (wanted, _))| UnmatchedName {
            name: wanted.label.clone(),
            nearest: match wanted.stored.first() {
                Some(stored) if at < WITH_NEIGHBOURS => nearest(stored, base),
                _ => Vec::new(),
            },
        })
        .collect()
}

/// Up to two base names that share the most trailing, then leading, parts with `name`.
pub(crate) fn nearest(name: &str, base: &BTreeSet<&str>) -> Vec<String> {
    let separators = ['.', '/', '_'];
    let parts: Vec<&str> = name.split(separators).collect();
    let likeness = |candidate: &str| {
        let others: Vec<&str> = candidate.split(separators).collect();
        let same = |(a, b): &(&&str, &&str)| a == b;
        let tail = parts.iter().rev().zip(others.iter().rev()).take_while(same).count();
        let head = parts.iter().zip(others.iter()).take_while(same).count();
        (tail + head, tail)
    };
    let mut scored: Vec<_> =
        base.iter().map(|candidate| (likeness(candidate), *candidate)).collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().filter(|((all, _), _)| *all > 1).take(2).map(|(_, n)| n.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(wanted: &[&str], base: &[&str]) -> Result<Vec<Option<String>>> {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|name| Wanted {
                label: (*name).to_owned(),
                stored: vec![format!("{name}.weight"), (*name).to_owned()],
            })
            .collect();
        let base: Vec<String> = base.iter().map(|name| format!("{name}.weight")).collect();
        let base = base.iter().map(String::as_str).collect();
        resolve(&wanted, &base, &|_, _| true).map(|resolved| resolved.names)
    }

    fn names(found: &[Option<String>]) -> Vec<&str> {
        found.iter().map(|name| name.as_deref().unwrap_or("-")).collect()
    }

    #[test]
    fn prefixes_come_and_go() {
        for (wanted, base) in [
            ("model.layers.0.q", "model.layers.0.q"),
            ("layers.0.q", "model.layers.0.q"),
            ("model.layers.0.q", "layers.0.q"),
            ("bert.encoder.layer.0.q", "encoder.layer.0.q"),
            ("model.layers.0.attn.q", "unet/layers.0.attn.q"),
            ("model.language_model.layers.0.q", "language_model.model.layers.0.q"),
            ("model.layers.0.q", "model.language_model.layers.0.q"),
            ("lin", "lin"),
        ] {
            let found = find(&[wanted], &[base, "other.layers.1.k"]).expect(wanted);
            assert_eq!(names(&found), [format!("{base}.weight")], "{wanted}");
        }
    }

    #[test]
    fn one_rewriting_serves_all_parts_of_a_vision_model() {
        let found = find(
            &["model.language_model.layers.0.q", "model.visual.blocks.0.q"],
            &["language_model.model.layers.0.q", "visual.blocks.0.q"],
        );
        assert!(found.expect("resolves").iter().all(Option::is_some));
    }

    #[test]
    fn rewritings_are_never_mixed() {
        let found = find(
            &["layers.0.q", "layers.1.q", "layers.2.q"],
            &["x.layers.0.q", "y.layers.1.q", "y.layers.2.q"],
        );
        let found = found.expect("no ambiguity");
        assert_eq!(names(&found), ["-", "y.layers.1.q.weight", "y.layers.2.q.weight"]);
    }

    #[test]
    fn a_layer_never_lands_on_another_one() {
        for wanted in ["model.layers.5.attn.q", "5.attn.mlp.q", "layers.0.experts.1.w.x"] {
            let base = ["model.layers.0.attn.q", "0.attn.mlp.q", "layers.1.experts.1.w.x"];
            assert_eq!(names(&find(&[wanted], &base).expect("no ambiguity")), ["-"], "{wanted}");
        }
    }

    #[test]
    fn one_text_encoder_never_lands_on_another() {
        let of = |encoder: &str| format!("{encoder}text_model.layers.20.q");
        for (wanted, base, lands) in [
            ("text_encoder.", "text_encoder_2/", false),
            ("text_encoder_2.", "text_encoder_2/", true),
            ("text_encoders.clip_g.transformer.", "text_encoder/", false),
        ] {
            let found = find(&[&of(wanted)], &[&of(base)]).expect("no ambiguity");
            assert_eq!(found.iter().all(Option::is_some), lands, "{wanted} in {base}");
        }
    }

    #[test]
    fn two_equally_good_places_are_an_error() {
        let error = find(&["layers.0.q"], &["text.layers.0.q", "image.layers.0.q"]);
        assert!(matches!(error.expect_err("two places").kind(), ErrorKind::Ambiguous { .. }));
    }

    #[test]
    fn nearest_names_share_ends() {
        let base = BTreeSet::from(["model.layers.0.q_proj.weight", "model.norm.weight", "x"]);
        assert_eq!(
            nearest("layers.9.q_proj.weight", &base).first().map(String::as_str),
            Some("model.layers.0.q_proj.weight")
        );
    }
}
