//! The verbs that items can have, and how an item's keys become a verb's options. A key is an option of the verb by its
//! name in the table of options.

use std::path::Path;

use super::asked::Asked;
use crate::error::{Place, RecipeError, RecipeProblem};
use crate::format::yaml::{Node, Value};
use crate::ops::combine::{self, RankPolicy};
use crate::ops::run::Asked as AskedOfRecipe;
use crate::ops::run::fields::{
    Fields, Read, count, flag, input, number, orientations, output, regex, text, together,
    unexpected,
};
use crate::ops::run::recipe::{Recipe, dtype, keys_of, open};
use crate::ops::shared::options::{Recipe as Where, options_of};
use crate::ops::{as_lora, check, convert, extract, resize};

/// A verb that items can have.
pub(super) struct BatchVerb {
    pub(super) name: &'static str,
    /// The key of its input, which may be a pattern or a list: an item for each match.
    pub(super) each: &'static str,
    /// Whether the input is one of several `adapters`.
    pub(super) joins: bool,
    /// Keys that mean something beside another one only: no item has them of `defaults` without it.
    pub(super) beside: &'static [(&'static str, &'static str)],
    pub(super) keys: fn() -> Vec<&'static str>,
    pub(super) read: fn(&Node, &Path) -> Read<Asked>,
}

/// All of them.
pub(super) const VERBS: [BatchVerb; 6] = [
    BatchVerb {
        name: "resize",
        each: "adapter",
        joins: false,
        beside: &[],
        keys: || keys("resize", &[]),
        read: resize,
    },
    BatchVerb {
        name: "convert",
        each: "adapter",
        joins: false,
        beside: &[("rank", "as")],
        keys: || keys("convert", &[]),
        read: convert,
    },
    BatchVerb {
        name: "check",
        each: "adapter",
        joins: false,
        beside: &[],
        keys: || keys("check", &["adapter", "for", "against", "max_rank"]),
        read: check,
    },
    BatchVerb {
        name: "merge",
        each: "adapter",
        joins: true,
        beside: &[],
        keys: || keys_of("merge"),
        read: |node, folder| recipe("merge", node, folder),
    },
    BatchVerb {
        name: "combine",
        each: "adapter",
        joins: true,
        beside: &[],
        keys: || keys_of("combine"),
        read: |node, folder| recipe("combine", node, folder),
    },
    BatchVerb {
        name: "extract",
        each: "tuned",
        joins: false,
        beside: &[],
        keys: || keys("extract", &[]),
        read: extract,
    },
];

/// The options of a verb that change its result, and what else it takes.
fn keys(verb: &str, others: &[&'static str]) -> Vec<&'static str> {
    let of_table = options_of(verb).filter(|option| option.recipe == Where::Key);
    of_table.map(|option| option.name).chain(others.iter().copied()).collect()
}

/// The verb of a name.
///
/// # Errors
/// If there is no such verb for items.
pub(super) fn by_name(name: &str, place: Place) -> Read<&'static BatchVerb> {
    VERBS.iter().find(|verb| verb.name == name).ok_or_else(|| {
        let all = VERBS.map(|verb| verb.name).join(", ");
        let node = Node { place, value: Value::Scalar(name.to_owned(), true) };
        unexpected("verb", &node, all)
    })
}

fn fields<'a>(node: &'a Node, verb: &str) -> Read<Fields<'a>> {
    let found = by_name(verb, node.place)?;
    Fields::new(node, "an item", &(found.keys)(), |_| None)
}

/// Where an item's result goes, which has to be said.
fn destination(fields: &Fields<'_>, folder: &Path) -> Read<std::path::PathBuf> {
    output("output", fields.need("output")?, folder)
}

/// A path that need not be given.
fn path(fields: &Fields<'_>, key: &str, folder: &Path) -> Read<Option<std::path::PathBuf>> {
    fields.get(key).map(|node| input(key, node, folder)).transpose()
}

fn resize(node: &Node, folder: &Path) -> Read<Asked> {
    let fields = fields(node, "resize")?;
    let criterion = fields.read("dynamic_method", text)?;
    let ranks = resize::Ranks {
        rank: fields.parse::<RankPolicy>("rank")?,
        conv_rank: fields.parse("conv_rank")?,
        dynamic: criterion.zip(fields.read("dynamic_param", number)?),
    };
    if ranks.rank.is_none() && ranks.dynamic.is_none() {
        fields.need("rank")?;
    }
    let combine = combine::Options {
        output: destination(&fields, folder)?,
        open: open(&fields)?,
        max_rank: fields.read("max_rank", count)?,
        uniform: fields.read("uniform", flag)?.unwrap_or(false),
        include: fields.read("include", regex)?,
        exclude: fields.read("exclude", regex)?,
        dtype: dtype(&fields)?,
        to: fields.read("to", text)?,
        reference: path(&fields, "reference", folder)?,
        ..combine::Options::default()
    };
    let adapter = input("adapter", fields.need("adapter")?, folder)?;
    let options = resize::Options::new(adapter, &ranks, combine)
        .map_err(|error| together(node.place, error.to_string()))?;
    Ok(Asked::Resize(Box::new(options)))
}

fn convert(node: &Node, folder: &Path) -> Read<Asked> {
    let fields = fields(node, "convert")?;
    let (form, rank) = (fields.read("as", text)?, fields.parse::<RankPolicy>("rank")?);
    let (to, program) = (fields.read("to", text)?, fields.read("for", text)?);
    if let (Some(node), Some(form)) = (fields.get("as"), form.as_deref())
        && form != "lora"
    {
        return Err(unexpected("as", node, "lora"));
    }
    if to.is_none() && program.is_none() && form.is_none() {
        fields.need("to")?;
    }
    let convert = convert::Options {
        adapter: input("adapter", fields.need("adapter")?, folder)?,
        to: to.unwrap_or_default(),
        program,
        reference: path(&fields, "reference", folder)?,
        output: destination(&fields, folder)?,
        allow_loss: fields.read("allow_loss", flag)?.unwrap_or(false),
        open: open(&fields)?,
        force: false,
    };
    match (form, rank) {
        (None, None) => Ok(Asked::Convert(Box::new(convert))),
        (Some(_), Some(rank)) => {
            Ok(Asked::AsLora(Box::new(as_lora::Options { convert, rank, threads: 0 })))
        }
        (Some(_), None) => fields.need("rank").map(|_| Asked::Convert(Box::new(convert))),
        (None, Some(_)) => fields.need("as").map(|_| Asked::Convert(Box::new(convert))),
    }
}

fn check(node: &Node, folder: &Path) -> Read<Asked> {
    let fields = fields(node, "check")?;
    Ok(Asked::Check(Box::new(check::Options {
        adapter: input("adapter", fields.need("adapter")?, folder)?,
        program: fields.read("for", text)?,
        against: path(&fields, "against", folder)?,
        max_rank: fields.read("max_rank", count)?,
        open: open(&fields)?,
    })))
}

fn extract(node: &Node, folder: &Path) -> Read<Asked> {
    let fields = fields(node, "extract")?;
    let is = |key: &str| Ok(fields.read(key, flag)?.unwrap_or(false));
    let kohya = match fields.get("compat") {
        Some(node) if text("compat", node)? != "kohya" => {
            return Err(unexpected("compat", node, "kohya"));
        }
        given => given.is_some(),
    };
    fields.need("rank")?;
    Ok(Asked::Extract(Box::new(extract::Options {
        base: input("base", fields.need("base")?, folder)?,
        tuned: input("tuned", fields.need("tuned")?, folder)?,
        output: destination(&fields, folder)?,
        rank: fields.parse("rank")?.unwrap_or_default(),
        conv_rank: fields.parse("conv_rank")?,
        max_rank: fields.read("max_rank", count)?,
        embeddings: is("embeddings")?,
        full_norms: is("full_norms")?,
        min_diff: fields.read("min_diff", number)?.unwrap_or(0.0) as f32,
        exact: is("exact")?,
        kohya,
        clamp_quantile: fields.read("clamp_quantile", number)?,
        include: fields.read("include", regex)?,
        exclude: fields.read("exclude", regex)?,
        dtype: dtype(&fields)?,
        to: fields.read("to", text)?,
        orientation: fields.read("orientation", orientations)?.unwrap_or_default(),
        seed: fields.read("seed", count)?.unwrap_or(0) as u64,
        ..extract::Options::default()
    })))
}

/// A merge or a combination, whose keys are those of a recipe.
fn recipe(verb: &str, node: &Node, folder: &Path) -> Read<Asked> {
    let fields = fields(node, verb)?;
    for key in ["adapters", "output"] {
        fields.need(key)?;
    }
    if verb == "merge" {
        fields.need("base")?;
    }
    // What it says stands in the result's metadata as of a command, not as of a recipe.
    Ok(match Recipe::of(node, None, folder)?.asked {
        AskedOfRecipe::Merge(options) => Asked::Merge(options),
        AskedOfRecipe::Combine(options) => Asked::Combine(options),
    })
}

/// The error of a key that no verb has.
pub(super) fn unknown_default(key: &crate::format::yaml::Key) -> RecipeError {
    let all: Vec<String> = VERBS.iter().map(|verb| verb.name.to_owned()).collect();
    RecipeError {
        place: key.place,
        problem: RecipeProblem::Together(format!(
            "`{}` is a key of no item here (of {})",
            key.text,
            all.join(", ")
        )),
    }
}
