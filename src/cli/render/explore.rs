//! What other ranks of an adapter would give.

use lora_tool::ops::resize::Exploration;

use super::{Lines, bytes, count, kept, table};

/// A row for each rank that could be asked for.
pub(crate) fn report(report: &Exploration) -> String {
    let mut lines = Lines::default();
    lines.plain(report.adapter.display());
    let mut head = vec!["--rank", "ranks", "keeps", "error", "size", "parameters"];
    if report.served {
        head.push("vLLM --max-lora-rank");
    }
    let columns = head.len();
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    rows.extend(report.choices.iter().map(|explored| {
        let choice = &explored.choice;
        let (lowest, highest) = (choice.lowest, choice.highest);
        let mut row = vec![
            choice.rank.clone(),
            if lowest == highest { highest.to_string() } else { format!("{lowest} to {highest}") },
            kept(choice.energy_kept),
            super::error(choice.relative_error),
            bytes(choice.bytes),
            count(choice.parameters),
            explored.max_lora_rank.map_or_else(|| "too high".to_owned(), |rank| rank.to_string()),
        ];
        row.truncate(columns);
        row
    }));
    lines.text(&table(&rows));
    lines.into_text()
}
