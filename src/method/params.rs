//! Parameters of methods: what there is, and what can be wrong with one that a user gives.

use std::collections::BTreeMap;

/// One parameter, as a method takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    /// Its name, `--name` on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it can be.
    pub kind: ParamKind,
}

/// What a parameter can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// A number within limits, the lower one excluded if `above` is set.
    Number {
        /// Without one given.
        default: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// Whether the least itself is too little.
        above: bool,
        /// Whether there may be one for each adapter, in order.
        each: bool,
    },
    /// One of several words, the first if none is given.
    Word(&'static [&'static str]),
}

impl Param {
    const fn number(
        name: &'static str,
        about: &'static str,
        default: f64,
        limits: (f64, f64),
    ) -> Self {
        let kind = ParamKind::Number {
            default,
            least: limits.0,
            most: limits.1,
            above: false,
            each: false,
        };
        Self { name, about, kind }
    }

    /// The same parameter with a method's own default.
    #[must_use]
    pub(super) const fn or(mut self, value: f64) -> Self {
        if let ParamKind::Number { default, .. } = &mut self.kind {
            *default = value;
        }
        self
    }

    /// The default as text.
    pub fn default_text(&self) -> String {
        match self.kind {
            ParamKind::Number { default, .. } => default.to_string(),
            ParamKind::Word(words) => words.first().copied().unwrap_or_default().to_owned(),
        }
    }
}

/// Share of each delta's elements that is kept.
pub const DENSITY: Param = Param {
    name: "density",
    about: "share of each delta's elements that is kept; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.5, least: 0.0, most: 1.0, above: true, each: true },
};

/// Multiplies the combined delta.
pub const LAMBDA: Param = Param::number(
    "lambda",
    "multiplies the combined delta",
    1.0,
    (f64::NEG_INFINITY, f64::INFINITY),
);

/// Whose sign wins where deltas disagree.
pub const MAJORITY_SIGN: Param = Param {
    name: "majority-sign",
    about: "whose sign wins where deltas disagree: that of their sum, or the more frequent",
    kind: ParamKind::Word(&["total", "frequency"]),
};

/// What becomes of the elements that agree.
pub const REDUCE: Param = Param {
    name: "reduce",
    about: "what becomes of the elements that agree: their weighted mean, or their sum",
    kind: ParamKind::Word(&["mean", "sum"]),
};

/// Share of the largest elements that is dropped.
pub const GAMMA: Param = Param {
    name: "gamma",
    about: "share of each delta's largest elements that is dropped; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.01, least: 0.0, most: 1.0, above: false, each: true },
};

/// How far the chance of being kept varies around the density.
pub const EPSILON: Param = Param {
    name: "epsilon",
    about: "della: how far the chance to be kept varies with the magnitude, to either side of the density; ram: up to \
            what size an element counts as 0; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.1, least: 0.0, most: 0.5, above: false, each: true },
};

/// How much elements that one adapter alone changes are raised.
pub const OVERLAP_GAIN: Param = Param::number(
    "overlap-gain",
    "how much the elements that an adapter alone changes are raised, relative to its overlap with others; mergekit's r",
    0.1,
    (0.0, f64::INFINITY),
);

/// The most overlap that counts for that.
pub const OVERLAP_CAP: Param = Param::number(
    "overlap-cap",
    "the most overlap that counts for that; mergekit's alpha",
    0.2,
    (0.0, f64::INFINITY),
);

/// Where between two adapters.
pub const T: Param =
    Param::number("t", "where between the first adapter (0) and the second (1)", 0.5, (0.0, 1.0));

/// What an average over checkpoints keeps of the past.
pub const BETA: Param = Param::number(
    "beta",
    "share of the average so far that the next checkpoint leaves",
    0.95,
    (0.0, 1.0),
);

/// Share of the nuclear norm that truncation keeps.
pub const ETA: Param = Param {
    name: "eta",
    about: "share of each delta's nuclear norm that its truncation keeps",
    kind: ParamKind::Number { default: 0.4, least: 0.0, most: 1.0, above: true, each: false },
};

/// Share of the directions that are the sum's.
pub const COMMON: Param = Param::number(
    "common",
    "share of the directions that are the sum's; the others are the deltas' own",
    0.8,
    (0.0, 1.0),
);

/// Which side of the deltas counts.
pub const SIDE: Param = Param {
    name: "side",
    about: "what deltas share: the outputs that they write to, or the inputs that they read",
    kind: ParamKind::Word(&["out", "in"]),
};

/// How much the plain sum counts.
pub const RIDGE: Param = Param {
    name: "ridge",
    about: "pull towards the plain sum, as a share of the deltas' own",
    kind: ParamKind::Number {
        default: 0.01,
        least: 1e-9,
        most: f64::INFINITY,
        above: false,
        each: false,
    },
};

/// Chooses the random numbers.
pub const SEED: Param =
    Param::number("seed", "chooses the random numbers", 0.0, (0.0, 9_007_199_254_740_992.0));

/// Every parameter that some method takes.
pub const PARAMS: &[Param] = &[
    DENSITY,
    LAMBDA,
    MAJORITY_SIGN,
    REDUCE,
    GAMMA,
    EPSILON,
    OVERLAP_GAIN,
    OVERLAP_CAP,
    T,
    BETA,
    ETA,
    COMMON,
    SIDE,
    RIDGE,
    SEED,
];

/// What a user gave, by parameter, as text.
pub type Given = BTreeMap<String, String>;

/// A parameter that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadParam {
    /// The method has no use for it.
    #[error("`{method}` does not take --{name}; it takes {takes}")]
    NotTaken {
        /// The method.
        method: &'static str,
        /// The parameter.
        name: String,
        /// What it takes instead.
        takes: String,
    },
    /// Its value is not one.
    #[error("--{name} {found}: expected {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        found: String,
        /// What it can be.
        expected: String,
    },
}

/// The parameter of a name, with its general default.
pub(crate) fn by_name(name: &str) -> Option<&'static Param> {
    PARAMS.iter().find(|param| param.name == name)
}
