//! What a search for weights tried, and what it found.

use lora_tool::ops::tune::{Report, Trial};

use super::Lines;
use super::combine::chosen;

/// The head of the table of candidates.
pub(crate) const HEAD: &str = "       lambda  score      weights";

/// One candidate.
pub(crate) fn trial(trial: &Trial) -> String {
    let weights: Vec<String> = trial.weights.iter().map(f64::to_string).collect();
    let known = if trial.known { "  (known)" } else { "" };
    let number = format!("{}/{}", trial.number, trial.of);
    format!("{number:>6} {:<7} {:<10} {}{known}", trial.lambda, trial.score, weights.join(" "))
}

/// What was found.
pub(crate) fn report(report: &Report) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("tuned into {}", report.output.display()));
    lines.add("method", &report.method);
    chosen(&mut lines, report.chosen.as_ref());
    let first =
        report.trials.first().map_or(String::new(), |first| format!("; {} at first", first.score));
    lines.add("score", format!("{}{first}", report.best.score));
    lines.add("lambda", report.best.lambda);
    let weights: Vec<String> = report.best.weights.iter().map(f64::to_string).collect();
    lines.add("weights", weights.join(" "));
    lines.add("next", format!("lora-tool run {} -o OUT", report.output.display()));
    lines.into_text()
}
