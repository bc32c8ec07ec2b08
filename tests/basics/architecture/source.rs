//! Reads Rust sources as far as the rules need it: code without comments and strings, words, and the
//! layers that paths lead to.

/// A source file: its path below `src`, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Its layer: the folder, or the file's own name; the crate's root is above all layers.
    pub(crate) fn layer(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        match first.strip_suffix(".rs").unwrap_or(first) {
            "lib" => None,
            "main" => Some("cli"),
            layer => Some(layer),
        }
    }

    /// The module it is, as parts of a path from the crate's root.
    pub(crate) fn module(&self) -> Vec<String> {
        let mut parts: Vec<_> =
            self.path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            parts.pop();
        }
        parts
    }
}

/// Every (line, layer) that a path of the file starts at: `crate::x`, `lora_tool::x`, enough `super::`
/// to leave the file's own layer, and each arm of a group behind any of them.
pub(crate) fn used_layers(source: &Source) -> Vec<(usize, String)> {
    let paths = used_paths(source).into_iter();
    paths.filter_map(|(line, path)| Some((line, layer_of(path.first()?)))).collect()
}

/// Every path into the crate that a file names outside its tests, from the crate's root.
pub(crate) fn used_modules(source: &Source) -> Vec<Vec<String>> {
    let tests = source.text.lines().position(|line| line.trim() == "#[cfg(test)]");
    let paths = used_paths(source).into_iter();
    paths
        .filter(|(line, _)| tests.is_none_or(|start| *line <= start))
        .map(|(_, path)| path)
        .collect()
}

/// Every (line, path) of the file, from the crate's root, each arm of a group for itself.
fn used_paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    let code = code_of(&source.text);
    let mut used = Vec::new();
    let mut inline = InlineModules::default();
    for (number, line) in code.lines().enumerate() {
        for (at, word) in words(line) {
            let before = line.get(..at).unwrap_or_default();
            let after = code_after(&code, number, at + word.len());
            if word == "mod" {
                inline.enter(after);
            }
            let Some(rest) = after.strip_prefix("::").filter(|_| !before.ends_with("::")) else {
                continue;
            };
            let mut module = match word {
                "crate" | "lora_tool" => Vec::new(),
                "super" => inline.path(source.module()),
                _ => continue,
            };
            let mut rest = rest;
            if word == "super" {
                module.pop();
                while let Some(further) = rest.strip_prefix("super::") {
                    module.pop();
                    rest = further;
                }
            }
            used.extend(
                arms(rest).into_iter().map(|arm| (number + 1, [module.clone(), arm].concat())),
            );
        }
        inline.braces(line);
    }
    used
}

/// The layer that a name at the crate's root belongs to.
fn layer_of(name: &str) -> String {
    match name {
        "Error" | "ErrorKind" | "Result" => "error".to_owned(),
        name => name.to_owned(),
    }
}

/// `x::y` → x::y; `x::{y, z::w}` → x::y, x::z::w.
fn arms(text: &str) -> Vec<Vec<String>> {
    let Some(group) = text.trim_start().strip_prefix('{') else {
        let Some((start, name)) =
            words(text).first().copied().filter(|(at, _)| text[..*at].trim().is_empty())
        else {
            return Vec::new();
        };
        let Some(rest) = text.get(start + name.len()..).and_then(|rest| rest.strip_prefix("::"))
        else {
            return vec![vec![name.to_owned()]];
        };
        let further = arms(rest);
        let behind = |arm: Vec<String>| [vec![name.to_owned()], arm].concat();
        return if further.is_empty() {
            vec![vec![name.to_owned()]]
        } else {
            further.into_iter().map(behind).collect()
        };
    };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(group.get(start..at).map(arms).unwrap_or_default());
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// The `mod x { … }` around a place, each of which takes a `super` of its own.
#[derive(Default)]
struct InlineModules {
    depth: usize,
    open: Vec<(String, usize)>,
}

impl InlineModules {
    fn enter(&mut self, after: &str) {
        let body = after.split_once('{').filter(|(head, _)| !head.contains(';'));
        if let Some((name, _)) = body {
            self.open.push((name.trim().to_owned(), self.depth));
        }
    }

    fn braces(&mut self, line: &str) {
        for character in line.chars() {
            match character {
                '{' => self.depth += 1,
                '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.open.retain(|(_, depth)| *depth < self.depth);
                }
                _ => {}
            }
        }
    }

    fn path(&self, mut module: Vec<String>) -> Vec<String> {
        module.extend(self.open.iter().map(|(name, _)| name.clone()));
        module
    }
}

/// The text with comments, strings and characters blanked out, line by line in place.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest, code.chars().next_back());
        let (taken, blank) = if length > 0 { (length, true) } else { (first.len_utf8(), false) };
        let (part, further) = rest.split_at(taken);
        code.extend(part.chars().map(|c| if blank && c != '\n' { ' ' } else { c }));
        rest = further;
    }
    code
}

/// Bytes of the comment, string or character that `rest` begins with.
fn skipped(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let hashes = rest
        .strip_prefix('r')
        .filter(|_| !in_word)
        .map(|raw| raw.len() - raw.trim_start_matches('#').len());
    if let Some(hashes) = hashes
        && rest.get(1 + hashes..).is_some_and(|raw| raw.starts_with('"'))
    {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = hashes + 2;
        return rest
            .get(start..)
            .and_then(|raw| raw.find(&end))
            .map_or(rest.len(), |at| start + at + end.len());
    }
    if rest.starts_with('"') {
        return 1 + up_to_quote(rest.get(1..).unwrap_or_default(), '"');
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        // Else it is a lifetime.
        let mut characters = quoted.chars();
        let first = characters.next();
        if first == Some('\\') || characters.next() == Some('\'') {
            return 1 + up_to_quote(quoted, '\'');
        }
    }
    0
}

/// Bytes up to and with the closing quote, over escaped ones.
fn up_to_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The identifiers of a line and where they begin.
fn words(line: &str) -> Vec<(usize, &str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut start = None;
    for (at, character) in line.char_indices().chain([(line.len(), ' ')]) {
        match (part(character), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                found.extend(line.get(from..at).map(|word| (from, word)));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// All code from a column of a line on: a group may go over several lines.
fn code_after(code: &str, line: usize, column: usize) -> &str {
    let start: usize = code.split_inclusive('\n').take(line).map(str::len).sum();
    code.get(start + column..).unwrap_or_default()
}

/// Whether a line has the word, not as a part of a longer one.
pub(crate) fn holds_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line.get(..at), line.get(at + word.len()..));
        !before.unwrap_or_default().ends_with(part) && !after.unwrap_or_default().starts_with(part)
    })
}
