//! Spellings that people bring along from other tools, put into the usual one before clap reads them.

use std::ffi::OsString;

/// Options that take a list of numbers.
const NUMBERS: [&str; 4] = ["-w", "--weights", "--ratios", "--lora-multiplier"];

/// `--save_to` becomes `--save-to`, and `-w 1,-0.5` numbers of their own, which a value that starts
/// with a minus needs.
pub(super) fn usual(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut usual = Vec::new();
    let mut in_weights = false;
    let mut options = true;
    for arg in args {
        let Some(text) = arg.to_str().filter(|_| options) else {
            usual.push(arg);
            continue;
        };
        options = text != "--";
        let numbers =
            |list: &str| list.split(',').all(|number| number.trim().parse::<f64>().is_ok());
        if in_weights && numbers(text) {
            usual.extend(text.split(',').map(|number| OsString::from(number.trim())));
            continue;
        }
        let text = dashed(text);
        in_weights = NUMBERS.contains(&text.as_str());
        usual.push(text.into());
    }
    usual
}

/// A long option's name with dashes for underscores; its value, and all else, as it is.
fn dashed(arg: &str) -> String {
    let Some(option) = arg.strip_prefix("--") else { return arg.to_owned() };
    match option.split_once('=') {
        Some((name, value)) => format!("--{}={value}", name.replace('_', "-")),
        None => format!("--{}", option.replace('_', "-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> String {
        let args = usual(line.split(' ').map(OsString::from));
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn weights_split_at_commas_and_minus_signs() {
        assert_eq!(line("merge b a -w -1,0.5 -o x"), "merge b a -w -1 0.5 -o x");
        assert_eq!(line("merge --ratios 1 2 a,b"), "merge --ratios 1 2 a,b");
    }

    #[test]
    fn underscores_in_options_are_dashes() {
        assert_eq!(line("x --save_to a_b --set=k_v=w_x y_z"), "x --save-to a_b --set=k_v=w_x y_z");
        assert_eq!(line("x -- --not_this 1,2"), "x -- --not_this 1,2");
    }
}
