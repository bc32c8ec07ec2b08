//! What methods there are.

use lora_tool::method::catalogue::Entry;

use super::Lines;

/// Every method: what it does, what it takes, what it costs, and where it is from.
pub(crate) fn methods(entries: &[Entry]) -> String {
    let mut lines = Lines::default();
    // Where to start, for who does not want to read all of it.
    lines.plain(
        "usually: linear; where adapters write over each other: df-regmean, or ties; --method auto chooses",
    );
    for entry in entries {
        let aliases = entry.aliases.join(", ");
        let also = if aliases.is_empty() { String::new() } else { format!(" (also {aliases})") };
        lines.plain(format!("{}{also}", entry.name));
        lines.add("does", entry.summary);
        if !entry.parameters.is_empty() {
            lines.add("takes", entry.parameters_text());
        }
        lines.add("works on", format!("{}, {}", entry.space, entry.cost));
        if !entry.compat.is_empty() {
            lines.add("compat", entry.compat.join(", "));
        }
        lines.add("source", entry.source);
    }
    lines.into_text()
}
