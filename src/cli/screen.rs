//! How a report lies on a terminal: as wide as it is, folded at words, with what matters in colour.

use anstyle::{AnsiColor, Style};

/// The column that values stand in, behind their labels.
pub(crate) const VALUES: usize = 15;
/// The narrowest terminal that lines are folded for.
const NARROWEST: usize = 40;

/// Columns of the terminal that results go to; none where they go to a file or another program.
pub(crate) fn width() -> Option<usize> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        let columns = usize::from(size.ws_col);
        (columns > 0).then_some(columns.max(NARROWEST))
    }
    #[cfg(not(unix))]
    None
}

/// A report for a screen of this width: long lines go on below their values, and lines of some labels have their
/// colour (which whoever writes leaves out where no colour is wanted). Control characters are spelled out before.
pub(crate) fn laid_out(text: &str, width: Option<usize>) -> String {
    let mut laid = String::with_capacity(text.len());
    for line in text.lines() {
        let style = style(line);
        let folded = width.map_or_else(|| line.to_owned(), |width| folded(line, width));
        if style == Style::new() {
            laid.push_str(&folded);
        } else {
            laid.extend([style.render().to_string(), folded, style.render_reset().to_string()]);
        }
        laid.push('\n');
    }
    laid
}

/// What a line is printed in, by its label.
fn style(line: &str) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    let Some(indented) = line.strip_prefix("  ") else {
        return match line.starts_with("NOT ") {
            true => colour(AnsiColor::Red).bold(),
            false if line.is_empty() => Style::new(),
            false => Style::new().bold(),
        };
    };
    match indented.split("  ").next().unwrap_or_default() {
        "warning" | "changes" | "unknown" | "lost" | "left out" => colour(AnsiColor::Yellow),
        "breaks" | "fault" => colour(AnsiColor::Red),
        "fix" | "fix of that" | "hint" => colour(AnsiColor::Cyan),
        _ => Style::new(),
    }
}

/// A line in pieces that are no wider than `width` where its words are not, the later ones indented as what they
/// belong to.
fn folded(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let spaces = line.chars().take_while(|c| *c == ' ').count();
    // Behind a label, and under the value.
    let label = line.get(..VALUES).is_some_and(|start| spaces == 2 && start.ends_with(' '));
    let indent = if label { VALUES } else { spaces + 2 };
    let (mut text, mut column) = (String::new(), 0);
    for (at, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        let fits = column + 1 + length <= width;
        if at > 0 && (fits || column <= indent) {
            text.push(' ');
            column += 1;
        } else if at > 0 {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        text.push_str(word);
        column += length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_their_values() {
        let line = "  advice       one two three four five";
        assert_eq!(
            folded(line, 26),
            "  advice       one two\n               three four\n               five"
        );
        assert_eq!(folded("one two three", 9), "one two\n  three");
        assert_eq!(folded("  short", 9), "  short");
        assert_eq!(folded(&"x".repeat(50), 40), "x".repeat(50));
    }

    #[test]
    fn only_screens_have_folds() {
        let text = format!("  kept         {}\n", "word ".repeat(40).trim_end());
        assert_eq!(laid_out(&text, None), text);
        assert!(laid_out(&text, Some(80)).lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn labels_have_colours() {
        assert!(laid_out("  warning      x\n", None).starts_with("\u{1b}[33m"));
        assert!(laid_out("merged\n", None).starts_with("\u{1b}[1m"));
        assert_eq!(laid_out("  kept         x\n\n", None), "  kept         x\n\n");
    }
}
