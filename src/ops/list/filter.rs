//! Conditions on rows: `rank>16`, `model~flux`, `title=Ink`.

use std::str::FromStr;

use super::row::{FIELDS, Row, Values, field};
use crate::ops::amount;

/// How a value is compared. A longer sign stands before those that it begins with.
const SIGNS: [(&str, Sign); 8] = [
    (">=", Sign::AtLeast),
    ("<=", Sign::AtMost),
    ("!=", Sign::IsNot),
    ("!~", Sign::HoldsNot),
    ("=", Sign::Is),
    ("~", Sign::Holds),
    (">", Sign::Above),
    ("<", Sign::Below),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Is,
    IsNot,
    Holds,
    HoldsNot,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// A condition on a row. Capitals do not matter; of several values (ranks, dtypes) one has to fulfil it; for `!=`
/// and `!~`, all.
#[derive(Debug, Clone)]
pub struct Condition {
    field: &'static str,
    sign: Sign,
    value: String,
    number: Option<f64>,
}

/// What to say of a field that there is not.
pub(super) fn unknown_field(name: &str) -> String {
    format!("no field `{name}` to sort or choose by; there are {}", FIELDS.join(", "))
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = text.find(['=', '~', '>', '<', '!']);
        let start =
            start.ok_or("a condition is a field, one of = != ~ !~ > >= < <=, and a value")?;
        let (name, rest) = text.split_at(start);
        let name = name.trim();
        let found = SIGNS.iter().find_map(|(text, sign)| Some((*sign, rest.strip_prefix(text)?)));
        let (sign, value) =
            found.ok_or_else(|| format!("`{rest}` begins with no sign that is known"))?;
        let field = field(name).ok_or_else(|| unknown_field(name))?;
        let value = value.trim().to_lowercase();
        let number = match field {
            "size" => amount(&value, true).ok().map(|bytes| bytes as f64),
            "rank" | "scale" | "modules" => value.parse().ok().filter(|x: &f64| x.is_finite()),
            _ => None,
        };
        let numeric = matches!(field, "size" | "rank" | "scale" | "modules");
        if numeric && number.is_none() {
            return Err(format!("`{value}` is no number, and a {field} is one"));
        }
        if numeric && matches!(sign, Sign::Holds | Sign::HoldsNot) {
            return Err(format!("a {field} is a number, which holds no text; use = or >"));
        }
        Ok(Self { field, sign, value, number })
    }
}

impl Condition {
    /// Whether a row fulfils it.
    pub fn holds(&self, row: &Row) -> bool {
        let all = matches!(self.sign, Sign::IsNot | Sign::HoldsNot);
        match row.values(self.field) {
            Values::Numbers(values) => {
                let fits = |value: &f64| {
                    self.number.is_some_and(|number| self.orders(value.partial_cmp(&number)))
                };
                if all { values.iter().all(fits) } else { values.iter().any(fits) }
            }
            Values::Texts(values) => {
                let fits = |value: &String| self.fits(&value.to_lowercase());
                if all { values.iter().all(fits) } else { values.iter().any(fits) }
            }
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self.sign {
            Sign::Holds => text.contains(&self.value),
            Sign::HoldsNot => !text.contains(&self.value),
            _ => self.orders(Some(text.cmp(self.value.as_str()))),
        }
    }

    fn orders(&self, order: Option<std::cmp::Ordering>) -> bool {
        order.is_some_and(|order| match self.sign {
            Sign::Is => order.is_eq(),
            Sign::IsNot => order.is_ne(),
            Sign::AtLeast => order.is_ge(),
            Sign::AtMost => order.is_le(),
            Sign::Above => order.is_gt(),
            Sign::Below => order.is_lt(),
            Sign::Holds | Sign::HoldsNot => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_condition_says_why() {
        for (text, words) in [
            ("rank", "a condition is"),
            ("rnk>3", "no field `rnk`"),
            ("rank>x", "`x` is no number"),
            ("rank~3", "holds no text"),
            ("size>1parsec", "is no number"),
            ("!rank", "no sign"),
        ] {
            let error = text.parse::<Condition>().err().unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn conditions_are_read() {
        let read = |text: &str| text.parse::<Condition>().map(|c| (c.field, c.sign, c.value));
        assert_eq!(read("rank >= 16"), Ok(("rank", Sign::AtLeast, "16".to_owned())));
        assert_eq!(read("family~Flux"), Ok(("model", Sign::Holds, "flux".to_owned())));
        assert_eq!(read("title=a=b"), Ok(("title", Sign::Is, "a=b".to_owned())));
        let size = "size>1.5MB".parse::<Condition>().map(|c| c.number);
        assert_eq!(size, Ok(Some(1.5e6)));
    }
}
