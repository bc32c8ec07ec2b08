//! Which method and weights adapters call for: the one rule behind the advice of `compare` and `--method auto`.
//!
//! Its thresholds were read off merges of trained adapters on three kinds of models (`docs/quality.md`); what it
//! says is what was right on most of them, not what must be right on others.

use serde::{Deserialize, Serialize};

/// Mean spill from which the plain sum loses more than it need. Below, the methods that are chosen above make all but
/// the same of language models' adapters.
const MUCH: f64 = 0.05;
/// Mean spill from which weights of 1 are too much for every method.
const TOO_MUCH: f64 = 0.35;
/// Adapters from which weights of 1 are too much for every method.
const MANY: usize = 4;
/// The weight that helped all methods there.
const LOWERED: f64 = 0.7;
/// Cosine from which two adapters say the same.
const ALIKE: f64 = 0.3;

/// What is known of adapters that are to be put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::ops) struct Facts {
    /// How many take part, with a weight that is not 0.
    pub(in crate::ops) adapters: usize,
    /// Their mean spill; none where no two of them have a module in common.
    pub(in crate::ops) spill: Option<f64>,
    /// The largest cosine of two of them.
    pub(in crate::ops) cosine: f64,
    /// Whether most of their modules are convolutions.
    pub(in crate::ops) convolutions: bool,
}

/// What is advised, and by which rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// What to do, and why.
    pub text: String,
    /// The rule it follows.
    pub rule: String,
    /// The method; none where there is nothing to advise.
    pub method: Option<String>,
    /// What every weight is multiplied by.
    pub factor: f64,
}

/// What the facts call for.
pub(in crate::ops) fn advise(facts: &Facts) -> Advice {
    let advice = |text: &str, rule: &str, method: Option<&str>, factor| Advice {
        text: text.to_owned(),
        rule: rule.to_owned(),
        method: method.map(str::to_owned),
        factor,
    };
    if facts.adapters < 2 {
        let text = "one adapter alone writes something: there is nothing to advise";
        return advice(text, "one adapter", None, 1.0);
    }
    let Some(spill) = facts.spill else {
        let text =
            "no module in common: different models or layouts, so there is nothing to advise";
        return advice(text, "no shared module", None, 1.0);
    };
    if facts.cosine > ALIKE {
        let text = "two of them say much the same: let the weights sum to 1, or the common part is applied twice";
        return advice(text, "cosine > 0.3", Some("linear"), 1.0 / facts.adapters as f64);
    }
    let (method, does, rule) = choice(facts, spill);
    let factor = if is_crowded(facts, spill) { LOWERED } else { 1.0 };
    let further = match is_crowded(facts, spill) {
        true => "; `lora-tool tune` finds better ones where a command can score them",
        false => "",
    };
    let percent = format!("{:.0} %", spill * 100.0);
    let text = format!(
        "where each writes, the others write {percent} of what it does: --method {method}, which {does}, weight \
         {factor} each{further}"
    );
    advice(&text, rule, Some(method), factor)
}

/// Whether weights of 1 are too much.
fn is_crowded(facts: &Facts, spill: f64) -> bool {
    facts.adapters >= MANY || spill > TOO_MUCH
}

/// The method, what it does, and the rule that says so.
fn choice(facts: &Facts, spill: f64) -> (&'static str, &'static str, &'static str) {
    let linear = "adds them as they are";
    let regression = "follows in every direction the adapter that writes there";
    match (facts.convolutions, is_crowded(facts, spill)) {
        (false, false) if spill < MUCH => ("linear", linear, "spill < 5 %"),
        (false, false) => ("df-regmean", regression, "spill ≥ 5 %"),
        (false, true) => ("df-regmean", regression, "4 adapters or more, or spill > 35 %"),
        (true, false) if spill < MUCH => ("linear", linear, "spill < 5 %, mostly convolutions"),
        (true, false) => (
            "ties",
            "drops small elements and those that disagree",
            "spill ≥ 5 %, mostly convolutions",
        ),
        (true, true) => (
            "tsv",
            "makes their directions orthogonal",
            "4 adapters or more, or spill > 35 %; mostly convolutions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets of unrelated tasks that no threshold was read off first, and the rows that were best on them, or within
    /// 1.5 points of those (docs/quality.md).
    #[test]
    fn what_was_right_on_other_sets() {
        let language = |adapters, spill| Facts {
            adapters,
            spill: Some(spill),
            cosine: 0.02,
            convolutions: false,
        };
        let network = |adapters, spill| Facts { convolutions: true, ..language(adapters, spill) };
        let cases = [
            (language(4, 0.21), "df-regmean", 0.7),
            (language(6, 0.26), "df-regmean", 0.7),
            (language(3, 0.16), "df-regmean", 1.0),
            (language(2, 0.11), "df-regmean", 1.0),
            (language(5, 0.44), "df-regmean", 0.7),
            (network(2, 0.11), "ties", 1.0),
            // Of these the number alone decides.
            (network(4, 0.06), "tsv", 0.7),
            (network(4, 0.5), "tsv", 0.7),
        ];
        for (facts, method, factor) in cases {
            let advice = advise(&facts);
            assert_eq!(
                (advice.method.as_deref(), advice.factor),
                (Some(method), factor),
                "{facts:?}"
            );
        }
    }

    #[test]
    fn the_rule() {
        let facts = Facts { adapters: 2, spill: Some(0.04), cosine: 0.0, convolutions: false };
        let cases = [
            (facts, Some("linear"), 1.0),
            (Facts { spill: Some(0.06), ..facts }, Some("df-regmean"), 1.0),
            (Facts { spill: Some(0.4), ..facts }, Some("df-regmean"), 0.7),
            (Facts { adapters: 4, ..facts }, Some("df-regmean"), 0.7),
            (Facts { spill: Some(0.04), convolutions: true, ..facts }, Some("linear"), 1.0),
            (Facts { spill: Some(0.06), convolutions: true, ..facts }, Some("ties"), 1.0),
            (Facts { adapters: 1, ..facts }, None, 1.0),
            (Facts { adapters: 5, convolutions: true, ..facts }, Some("tsv"), 0.7),
            (Facts { cosine: 0.9, ..facts }, Some("linear"), 0.5),
            (Facts { spill: None, ..facts }, None, 1.0),
        ];
        for (facts, method, factor) in cases {
            let advice = advise(&facts);
            assert_eq!((advice.method.as_deref(), advice.factor), (method, factor), "{facts:?}");
            assert_eq!(method.is_none(), !advice.text.contains("weight"), "{}", advice.text);
        }
    }
}
