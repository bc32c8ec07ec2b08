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

/// Verbs that do the work of kohya's scripts.
const KOHYAS_VERBS: [&str; 4] = ["merge", "combine", "resize", "extract"];

/// Options of kohya's scripts that change nothing here, since all is computed in f32 or better on the CPU, and models
/// are recognised by their names; and whether a value follows.
const WITHOUT_EFFECT: [(&str, bool); 7] = [
    ("--precision", true),
    ("--load-precision", true),
    ("--device", true),
    ("--sdxl", false),
    ("--v2", false),
    ("--v-parameterization", false),
    ("--mem-eff-safe-open", false),
];

/// A command line in the usual spelling without those options, and which there were.
pub(super) fn without_kohyas(args: Vec<OsString>) -> (Vec<OsString>, Vec<&'static str>) {
    let is_verb = |arg: &OsString| KOHYAS_VERBS.iter().any(|verb| arg == verb);
    if !args.get(1).is_some_and(is_verb) {
        return (args, Vec::new());
    }
    let (mut rest, mut left_out, mut options) = (Vec::new(), Vec::new(), true);
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        options &= arg != "--";
        let text = arg.to_str().filter(|_| options).unwrap_or_default();
        let (name, joined) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
        let Some((name, valued)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) else {
            rest.push(arg);
            continue;
        };
        left_out.push(*name);
        if *valued && !joined {
            args.next();
        }
    }
    (rest, left_out)
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
    fn options_without_effect_are_left_out_where_kohyas_scripts_have_them() {
        let left = |line: &str| {
            let (args, names) = without_kohyas(usual(line.split(' ').map(OsString::from)));
            let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
            (args.join(" "), names)
        };
        let line = "x merge --precision float a --device=cuda --sdxl -o b -- --v2";
        let names = vec!["--precision", "--device", "--sdxl"];
        assert_eq!(left(line), ("x merge a -o b -- --v2".to_owned(), names));
        assert_eq!(left("x check --device cuda"), ("x check --device cuda".to_owned(), vec![]));
    }

    #[test]
    fn underscores_in_options_are_dashes() {
        assert_eq!(line("x --save_to a_b --set=k_v=w_x y_z"), "x --save-to a_b --set=k_v=w_x y_z");
        assert_eq!(line("x -- --not_this 1,2"), "x -- --not_this 1,2");
    }
}
