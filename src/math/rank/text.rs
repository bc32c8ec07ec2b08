//! Rank policies as users write them, and amounts with their units.

use std::fmt;
use std::str::FromStr;

use super::policy::RankPolicy;

/// The least share that can only be meant in per cent.
const PERCENT: f64 = 5.0;

impl FromStr for RankPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lossless" => return Ok(Self::Lossless),
            "mp" => return Ok(Self::MarchenkoPastur),
            _ => {}
        }
        if let Ok(rank) = text.parse::<usize>() {
            return match rank {
                0 => Err("rank 0 would leave nothing; the least rank is 1".to_owned()),
                rank => Ok(Self::Fixed(rank)),
            };
        }
        let Some((name, value)) = text.split_once(':') else {
            return Err(match share_of(text) {
                Some(share) => format!("`{text}` is no rank policy; did you mean energy:{share}?"),
                None => format!("`{text}` is no rank policy; there are {POLICIES}"),
            });
        };
        let number = || {
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| match share_of(value) {
                Some(share) => format!("`{value}` is no number; did you mean {name}:{share}?"),
                None => format!("`{value}` is no number"),
            })
        };
        let share = || {
            let share = number()?;
            let fits = share > 0.0 && share <= 1.0;
            fits.then_some(share).ok_or_else(|| match (PERCENT..=100.0).contains(&share) {
                true => format!("{share} is above 1; did you mean {name}:{}?", share / 100.0),
                false => format!("`{value}` is no share: 0 < share ≤ 1"),
            })
        };
        let above = |least: f64| {
            let number = number()?;
            (number > least)
                .then_some(number)
                .ok_or_else(|| format!("`{value}` must be above {least}"))
        };
        match name {
            "energy" => share().map(Self::Energy),
            "fro" => share().map(Self::Frobenius),
            "nuclear" => share().map(Self::Nuclear),
            "ratio" => above(1.0).map(Self::Ratio),
            "abs" => above(0.0).map(Self::Absolute),
            "error" => share().map(Self::Error),
            "size" => amount(value, true).map(Self::Size),
            "params" => amount(value, false).map(Self::Parameters),
            "sv_ratio" => above(1.0).map(Self::KohyaRatio),
            "sv_fro" => share().map(Self::KohyaFrobenius),
            "sv_cumulative" => share().map(Self::KohyaCumulative),
            _ => Err(format!("`{name}` is no rank policy; there are {POLICIES}")),
        }
    }
}

/// The share that `90%` or `0.9` would be.
fn share_of(text: &str) -> Option<f64> {
    let (number, all) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok()? / all;
    (share > 0.0 && share <= 1.0).then_some(share)
}

const POLICIES: &str = "a number, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, \
                        error:0.05, size:32MiB, params:2M, mp, sv_ratio:…, sv_fro:…, sv_cumulative:…";

/// `32MiB`, `2M`, `1500000`: powers of 1000, with an i of 1024.
///
/// # Errors
/// What is wrong with the text.
pub fn amount(text: &str, bytes: bool) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no amount"))?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = if bytes { unit.strip_suffix('b').unwrap_or(&unit) } else { unit.as_str() };
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024f64.powi(2),
        "gi" => 1024f64.powi(3),
        "ti" => 1024f64.powi(4),
        _ => return Err(format!("`{text}` has no unit that is known: K, M, G, T, Ki, Mi, Gi, Ti")),
    };
    let amount = number * factor;
    if !(1.0..=1e18).contains(&amount) {
        return Err(format!("`{text}` is no amount that is possible"));
    }
    Ok(amount as u64)
}

impl fmt::Display for RankPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(rank) => write!(f, "{rank}"),
            Self::Lossless => f.write_str("lossless"),
            Self::MarchenkoPastur => f.write_str("mp"),
            Self::Energy(share) => write!(f, "energy:{share}"),
            Self::Frobenius(share) => write!(f, "fro:{share}"),
            Self::Nuclear(share) => write!(f, "nuclear:{share}"),
            Self::Ratio(ratio) => write!(f, "ratio:{ratio}"),
            Self::Absolute(least) => write!(f, "abs:{least}"),
            Self::Error(error) => write!(f, "error:{error}"),
            Self::Size(bytes) => write!(f, "size:{bytes}"),
            Self::Parameters(count) => write!(f, "params:{count}"),
            Self::KohyaRatio(ratio) => write!(f, "sv_ratio:{ratio}"),
            Self::KohyaFrobenius(share) => write!(f, "sv_fro:{share}"),
            Self::KohyaCumulative(share) => write!(f, "sv_cumulative:{share}"),
        }
    }
}
