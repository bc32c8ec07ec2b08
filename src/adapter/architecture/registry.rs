//! The rules that hold for a base, of all architectures that it could be of.

use std::collections::BTreeMap;

use super::ARCHITECTURES;
use super::cut::Cut;
use super::definition::{Names, OfBase, Rule};
use super::evidence::Evidence;

/// Declares the file of every architecture and lists them.
macro_rules! architectures {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// All architectures; of those that an adapter could be of, the first is taken: what has signs of its own
        /// comes before those that share its names.
        pub(super) static ARCHITECTURES: &[&Architecture] = &[$(&$name::ARCHITECTURE),+];
    };
}

/// The rules that hold for a base whose tensors below one root these are.
pub(in crate::adapter) fn rules_of_base(seen: &Evidence<'_>) -> Vec<Rule> {
    let names: Names<'_> = seen.0.iter().map(|body| body.path).collect();
    let detected = ARCHITECTURES
        .iter()
        .filter(|known| matches!(known.rules, OfBase::Detected))
        .find_map(|known| (known.detect)(seen));
    let mut rules = Vec::new();
    for known in ARCHITECTURES {
        match known.rules {
            OfBase::Beside(find) => rules.extend(find(&names)),
            OfBase::Names(find) if detected.is_none() => rules.extend(find(&names)),
            OfBase::Names(_) | OfBase::Detected => {}
        }
    }
    if let Some(detected) = detected {
        rules.extend(detected.rules.into_iter().chain(detected.comfyui));
    }
    let between = between_published(&rules);
    rules.extend(between);
    rules
}

/// Modules that have two names whatever the architecture, whole under both, of the models that have these paths.
pub(in crate::adapter) fn renames(paths: &Names<'_>) -> Vec<Rule> {
    let beside = ARCHITECTURES.iter().filter_map(|known| match known.rules {
        OfBase::Beside(find) => Some(find(paths)),
        OfBase::Names(_) | OfBase::Detected => None,
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

#[cfg(test)]
mod tests {
    use super::super::table::{self, rules_of};
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
