//! Numbers as people read them.

pub(crate) use lora_tool::error::human_bytes as bytes;

/// Counts in thousands, millions and so on.
pub(crate) fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.0} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}

/// A share in per cent, without a minus before zeros.
pub(crate) fn percent(share: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", share * 100.0);
    match text.strip_prefix('-') {
        Some(zeros) if zeros.chars().all(|c| matches!(c, '0' | '.')) => format!("{zeros} %"),
        _ => format!("{text} %"),
    }
}

/// A relative error in per cent, with two digits that tell something.
pub(crate) fn error(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 1e-4 => "below 0.0001 %".to_owned(),
        percent if percent < 9.95 => {
            let digits = (1.0 - percent.log10().floor()).clamp(1.0, 5.0) as usize;
            format!("{percent:.digits$} %")
        }
        percent => format!("{percent:.0} %"),
    }
}

/// The share of an energy that was kept: with a digit more where it is nearly all, without digits that tell nothing.
pub(crate) fn kept(share: f64) -> String {
    match share {
        share if share >= 0.9999 => "all".to_owned(),
        share if share >= 0.99 => percent(share, 2),
        share => percent(share, 0),
    }
}

/// A rank policy as people say it: budgets in the units of sizes and counts.
pub(crate) fn policy(text: &str) -> String {
    let amount = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
    match (amount("size:"), amount("params:")) {
        (Some(size), _) => format!("at most {}", bytes(size)),
        (_, Some(parameters)) => format!("at most {} parameters", count(parameters)),
        _ => text.to_owned(),
    }
}

/// A number with at most four digits that tell something.
pub(crate) fn number(value: f64) -> String {
    let rounded = format!("{value:.3e}").parse().unwrap_or(value);
    format!("{rounded}")
}

/// An adapter's weight.
pub(crate) fn weight(weight: f64, by_module: bool) -> String {
    if by_module { "weights by module".to_owned() } else { format!("weight {weight}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1234), "1.2 kB");
        assert_eq!(bytes(999_900), "1.0 MB");
        assert_eq!(bytes(4_200_000_000), "4.2 GB");
    }

    #[test]
    fn numbers_have_the_digits_that_tell_something() {
        assert_eq!(number(0.353_553_390_6), "0.3536");
        assert_eq!(number(1e-9), "0.000000001");
        assert_eq!(number(8.0), "8");
        assert_eq!(error(0.14), "14 %");
        assert_eq!(error(0.0), "0 %");
        assert_eq!(error(0.0123), "1.2 %");
        assert_eq!(error(1e-9), "below 0.0001 %");
    }

    #[test]
    fn shares_and_budgets_read_well() {
        assert_eq!([kept(1.0), kept(0.9942), kept(0.894)], ["all", "99.42 %", "89 %"]);
        assert_eq!(policy("size:30720"), "at most 31 kB");
        assert_eq!(policy("params:2000000"), "at most 2.0 M parameters");
        assert_eq!(policy("energy:0.9"), "energy:0.9");
    }

    #[test]
    fn zeros_have_no_sign() {
        assert_eq!(percent(-1e-9, 2), "0.00 %");
        assert_eq!(percent(-0.5, 1), "-50.0 %");
        assert_eq!(percent(1.0, 0), "100 %");
    }
}
