//! How hints and reports spell commands that a user can copy.

use std::path::Path;

/// A path as a shell takes it for one word.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-+=:@%,".contains(c);
    let option = text.starts_with('-');
    let text = if option { format!("./{text}") } else { text };
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("a/b-1.safetensors")), "a/b-1.safetensors");
        assert_eq!(quoted(Path::new("my style")), "'my style'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("-x")), "./-x");
    }
}
