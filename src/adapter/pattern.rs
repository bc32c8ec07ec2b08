//! PEFT's patterns of module names, `^(.*\.)?(KEY)$`, within bounds of memory: names are compared as
//! they are, and only keys that hold more than a name become regular expressions.

use regex::{Regex, RegexBuilder};

/// Bytes that the compiled expressions of one dictionary may take in all.
const ROOM: usize = 16 << 20;
/// Bytes that one of them may take.
const LARGEST: usize = 1 << 20;
/// Expressions in one dictionary; those that tools write have some ten.
const MOST: usize = 1000;

/// One key of a pattern dictionary.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// Letters, digits, `_`, `-` and dots, each of which stands for any character.
    Name(String),
    /// Anything else.
    Expression(Regex),
}

impl Pattern {
    /// All keys of a dictionary, in order.
    ///
    /// # Errors
    /// The reason, if a key is no regular expression, or they are too many or too large.
    pub(super) fn all<'a>(
        keys: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Vec<Self>, String> {
        let count = keys.clone().filter(|key| !is_name(key)).count();
        if count > MOST {
            return Err(format!("{count} regular expressions; at most {MOST} are read"));
        }
        let room = LARGEST.min(ROOM / count.max(1));
        let pattern = |key: &str| match is_name(key) {
            true => Ok(Self::Name(key.to_owned())),
            false => expression(key, room).map(Self::Expression),
        };
        keys.map(pattern).collect()
    }

    /// Whether a module's name is, or ends after a dot in, what the key says.
    pub(super) fn is_match(&self, module: &str) -> bool {
        match self {
            Self::Name(name) => ends_in(module, name),
            Self::Expression(regex) => regex.is_match(module),
        }
    }
}

fn is_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn expression(key: &str, room: usize) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(&format!(r"^(.*\.)?({key})$"));
    builder.size_limit(room).dfa_size_limit(room).build().map_err(|error| {
        // The last line says what is wrong, those before it repeat the pattern.
        let (error, start) = (error.to_string(), key.chars().take(60).collect::<String>());
        let what = error.lines().last().unwrap_or_default();
        format!("`{start}`: {}", what.trim_start_matches("error: "))
    })
}

/// As the expression `^(.*\.)?(NAME)$` with a name in it: its dots stand for any character but a line's
/// end, which no character before a match may be either.
fn ends_in(module: &str, name: &str) -> bool {
    let mut rest = module.chars().rev();
    let same = name.chars().rev().all(|wanted| {
        rest.next().is_some_and(|found| if wanted == '.' { found != '\n' } else { found == wanted })
    });
    same && rest.next().is_none_or(|before| before == '.' && rest.all(|c| c != '\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_their_expressions_do() {
        let keys = ["q_proj", "layers.0.q_proj", "a.b", "", ".", "a-b.1"];
        let modules = [
            "q_proj",
            "model.layers.0.q_proj",
            "model.layersx0.q_proj",
            "xq_proj",
            "layers.10.q_proj",
            "a.b",
            "a\nb",
            "x.a\u{e9}b",
            "x\n.a.b",
            "",
            "a.",
            "é",
            "x.a-b.1",
        ];
        for key in keys {
            let name = Pattern::all(std::iter::once(key)).expect("a name").remove(0);
            assert!(matches!(name, Pattern::Name(_)));
            let regex = expression(key, LARGEST).expect("a pattern");
            for module in modules {
                assert_eq!(name.is_match(module), regex.is_match(module), "{key:?} {module:?}");
            }
        }
    }

    #[test]
    fn expressions_are_few_and_small() {
        let keys = |count: usize| (0..count).map(|n| format!("l{n}.*x")).collect::<Vec<_>>();
        let all =
            |keys: &[String]| Pattern::all(keys.iter().map(String::as_str)).map(|all| all.len());
        assert_eq!(all(&keys(MOST)), Ok(MOST));
        assert!(all(&keys(MOST + 1)).expect_err("too many").contains("at most 1000"));
        assert!(all(&["(a{1000}){1000}".to_owned()]).is_err());
        let names: Vec<_> = (0..100_000).map(|n| format!("layers.{n}.q_proj")).collect();
        assert_eq!(all(&names), Ok(100_000));
    }
}
