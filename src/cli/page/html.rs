//! The page's frame, tables and lists, and how text gets into them.

use std::fmt::Write;
use std::path::Path;

use lora_tool::error::harmless;
use lora_tool::format::access::head_of;

use super::made::Made;

/// Text that means nothing to a browser, in an element or an attribute; control and direction
/// characters are spelled out.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in harmless(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// What tells a page of this tool.
const GENERATOR: &str = "<meta name=\"generator\" content=\"lora-tool\">";

/// Whether a file is a page that was written here: its head says so.
pub(crate) fn is_page(path: &Path) -> bool {
    /// The head's metadata stands before this many bytes.
    const HEAD: u64 = 1024;
    head_of(path, HEAD).is_some_and(|head| head.contains(GENERATOR))
}

/// A whole page around `body`, which is HTML already.
pub(super) fn page(title: &str, body: &str, made: &Made) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{GENERATOR}\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         {body}</main>\n{foot}</body>\n</html>\n",
        title = escape(title),
        style = include_str!("style.css"),
        foot = foot(made),
    )
}

/// The version, the command line, and the adapters' hashes.
fn foot(made: &Made) -> String {
    let (version, command) = (env!("CARGO_PKG_VERSION"), escape(&made.command));
    let mut text = format!("<footer>lora-tool {version}: <code>{command}</code>");
    for (file, sha256) in &made.inputs {
        let _ = write!(text, "<br>\n{}: SHA-256 <code>{sha256}</code>", escape(file));
    }
    text + "</footer>\n"
}

/// A part of the page under a heading, which links lead to by its id.
pub(super) fn section(heading: &str, id: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", escape(heading))
}

/// Links to sections, by their ids.
pub(super) fn contents(sections: &[(String, String)]) -> String {
    let link = |(id, name): &(String, String)| format!("<a href=\"#{id}\">{}</a>", escape(name));
    let links: Vec<_> = sections.iter().map(link).collect();
    format!("<nav aria-label=\"Contents\">{}</nav>\n", links.join("\n"))
}

/// What opens at a click: a line, and what is behind it (HTML already).
pub(super) fn details(line: &str, body: &str) -> String {
    format!("<details>\n<summary>{}</summary>\n{body}</details>\n", escape(line))
}

/// Figures side by side where there is room.
pub(super) fn figures(figures: &[String]) -> String {
    format!("<div class=\"figures\">\n{}</div>\n", figures.concat())
}

/// Labels and what they stand for.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let mut list = String::from("<dl>\n");
    for (label, value) in facts {
        let _ = writeln!(list, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label), escape(value));
    }
    list + "</dl>\n"
}

/// A paragraph of a class: a sentence, in which backticks set code.
pub(super) fn note(class: &str, text: &str) -> String {
    let mut sentence = String::new();
    for (at, part) in escape(text).split('`').enumerate() {
        let _ = match at % 2 {
            0 => write!(sentence, "{part}"),
            _ => write!(sentence, "<code>{part}</code>"),
        };
    }
    let mut characters = sentence.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!("<p class=\"{class}\">{}{}</p>\n", first.unwrap_or_default(), characters.as_str())
}

/// A table that scrolls sideways where it is wider than the screen; the first column names the rows.
pub(super) fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let caption = escape(caption);
    let mut text = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n\
         <table>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for (at, cell) in head.iter().enumerate() {
        // Above texts, at the left as they are.
        let texts = rows.first().and_then(|row| row.get(at)).is_some_and(|cell| is_text(cell));
        let class = if texts { " class=\"text\"" } else { "" };
        let _ = write!(text, "<th scope=\"col\"{class}>{}</th>", escape(cell));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match at {
                0 => write!(text, "<th scope=\"row\">{cell}</th>"),
                _ if is_text(&cell) => write!(text, "<td class=\"text\">{cell}</td>"),
                _ => write!(text, "<td>{cell}</td>"),
            };
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody>\n</table>\n</div>\n"
}

/// Whether a cell is words, which stand at the left, and no number.
fn is_text(cell: &str) -> bool {
    cell.chars().next().is_some_and(char::is_alphabetic)
}

/// A plot with its title, a sentence on how to read it, and a legend (HTML already). One that is wide has the whole
/// width, and scrolls where the screen is narrower.
pub(super) fn figure(
    (title, reading): (&str, &str),
    svg: &str,
    legend: &str,
    wide: bool,
) -> String {
    let (title, reading) = (escape(title), escape(reading));
    let class = if wide { " class=\"wide\"" } else { "" };
    let svg = match wide {
        true => format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"{title}\" tabindex=\"0\">\n{svg}</div>\n"
        ),
        false => svg.to_owned(),
    };
    format!(
        "<figure{class}>\n<figcaption><strong>{title}</strong> <span>{reading}</span></figcaption>\n\
         {svg}{legend}</figure>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        let name = "</td><script>alert('x')</script>\"&\u{202e}\u{1b}";
        let safe = escape(name);
        assert_eq!(
            safe,
            "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\\u{202e}\\u{1b}"
        );
        let made =
            Made { command: name.to_owned(), inputs: vec![(name.to_owned(), "0123".to_owned())] };
        let everywhere = [
            page(name, "", &made),
            section(name, "s", ""),
            facts(&[(name, name.to_owned())]),
            table(name, &[name], &[vec![name.to_owned(), name.to_owned()]]),
            figure((name, name), "", "", true),
            note("advice", name),
            details(name, ""),
            contents(&[("s".to_owned(), name.to_owned())]),
        ];
        for text in everywhere {
            assert!(text.contains(&safe) && !text.contains("<script"), "{text}");
        }
    }
}
