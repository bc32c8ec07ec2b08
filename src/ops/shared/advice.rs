//! Which method and weights adapters call for: the one rule behind the advice of `compare`.
//!
//! Its thresholds were read off merges of trained adapters on three kinds of models (`docs/quality.md`); what it
//! says is what was right on most of them, not what must be right on others.

use serde::Serialize;

/// Mean spill from which the plain sum loses more than it need.
const MUCH: f64 = 0.13;
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
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    /// What to do, and why.
    pub text: String,
    /// The rule it follows.
    pub rule: &'static str,
    /// The method; none where there is nothing to advise.
    pub method: Option<&'static str>,
    /// What every weight is multiplied by.
    pub factor: f64,
}

/// What the facts call for.
pub(in crate::ops) fn advise(facts: &Facts) -> Advice {
    let Some(spill) = facts.spill else {
        let text =
            "no module in common: different models or layouts, so there is nothing to advise";
        let text = text.to_owned();
        return Advice { text, rule: "no shared module", method: None, factor: 1.0 };
    };
    if facts.cosine > ALIKE {
        let text = "two of them say much the same: let the weights sum to 1, or the common part is applied twice";
        let factor = 1.0 / facts.adapters.max(1) as f64;
        let (text, method) = (text.to_owned(), Some("linear"));
        return Advice { text, rule: "cosine > 0.3", method, factor };
    }
    let percent = format!("{:.0} %", spill * 100.0);
    let crowded = facts.adapters >= MANY || spill > TOO_MUCH;
    if spill < MUCH && !crowded {
        let text = format!(
            "where each writes, the others write {percent} of what it does, which is little: --method linear, \
             weight 1 each"
        );
        return Advice { text, rule: "spill < 13 %", method: Some("linear"), factor: 1.0 };
    }
    let (method, what, rule) = match (facts.convolutions, crowded) {
        (false, false) => {
            ("df-regmean", "has every direction as the adapter that writes to it", "spill ≥ 13 %")
        }
        (false, true) => (
            "df-regmean",
            "has every direction as the adapter that writes to it",
            "4 adapters or more, or spill > 35 %",
        ),
        (true, false) => {
            ("tsv", "makes their directions orthogonal", "spill ≥ 13 %, mostly convolutions")
        }
        (true, true) => (
            "tsv",
            "makes their directions orthogonal",
            "4 adapters or more, or spill > 35 %; mostly convolutions",
        ),
    };
    let factor = if crowded { LOWERED } else { 1.0 };
    let further = match crowded {
        true => "; score other weights too if you can: none is best for all",
        false => "",
    };
    let text = format!(
        "where each writes, the others write {percent} of what it does: --method {method}, which {what}, weight \
         {factor} each{further}"
    );
    Advice { text, rule, method: Some(method), factor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        let facts = Facts { adapters: 2, spill: Some(0.05), cosine: 0.0, convolutions: false };
        let cases = [
            (facts, Some("linear"), 1.0),
            (Facts { spill: Some(0.2), ..facts }, Some("df-regmean"), 1.0),
            (Facts { spill: Some(0.4), ..facts }, Some("df-regmean"), 0.7),
            (Facts { adapters: 4, ..facts }, Some("df-regmean"), 0.7),
            (Facts { spill: Some(0.2), convolutions: true, ..facts }, Some("tsv"), 1.0),
            (Facts { adapters: 5, convolutions: true, ..facts }, Some("tsv"), 0.7),
            (Facts { cosine: 0.9, ..facts }, Some("linear"), 0.5),
            (Facts { spill: None, ..facts }, None, 1.0),
        ];
        for (facts, method, factor) in cases {
            let advice = advise(&facts);
            assert_eq!((advice.method, advice.factor), (method, factor), "{facts:?}");
            assert_eq!(method.is_none(), !advice.text.contains("weight"), "{}", advice.text);
        }
    }
}
