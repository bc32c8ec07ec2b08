//! A combination from the options to the report.

use std::path::PathBuf;

use super::card::card;
use super::choose::{self, Choice};
use super::compute::ModuleSums;
use super::group::widest_of;
use super::open::Combine;
use super::options::Options;
use super::plan::Plan;
use super::rank::check_budget;
use super::replacements::replacements;
use super::report::Report;
use super::{align, auto, carry, compute, group, sum};
use crate::adapter::block_weights::BlockWeights;
use crate::adapter::convention::Output;
use crate::adapter::save::NewAdapter;
use crate::error::{ErrorKind, Locate, Result, counted};
use crate::format::Checkpoint;
use crate::format::natural::natural;
use crate::method::params::LAMBDA;
use crate::method::{Sketch, Space};
use crate::ops::shared::base::check_reference;
use crate::ops::shared::method_name::peer_weights;
use crate::ops::shared::{self, left_over};
use crate::ops::{Progress, check_output, files_of, open_adapters, thread_pool};

/// Opens all adapters and decides the result's modules.
///
/// # Errors
/// Everything a user can get wrong; nothing has been written then.
pub fn plan(options: &Options) -> Result<Combine> {
    let (mut options, chosen) = auto::settle(options)?;
    let Choice { method, space, settings } = choose::choose(&options)?;
    peer_weights(options.compat, options.method.as_deref(), &mut options.adapters)?;
    let options = &options;
    let paths = options.adapters.iter().map(|input| input.path.as_path());
    check_output(&options.output, paths, options.force)?;
    let adapters = open_adapters(&options.adapters, &options.open)?;
    let files: Vec<_> = adapters.iter().flat_map(files_of).collect();
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    let (convention, target) = choose::conventions(options, &adapters)?;
    check_reference(options.reference.as_deref(), options.open.access)?;
    let adapters = align::align(adapters, convention, options.reference.as_deref())?;
    align::check_related(options, &adapters)?;
    let lists = options.block_weights.iter().map(|list| BlockWeights::new(list));
    let blocks: Vec<BlockWeights> = lists.collect::<Result<_>>()?;
    if !blocks.is_empty() && blocks.len() != adapters.len() {
        let reason = format!(
            "{} of block weights for {}; give --lbw once an adapter, in order",
            counted(blocks.len(), "list"),
            counted(adapters.len(), "adapter")
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    if options.card {
        let one_file = !matches!(target.output, Output::Directory(_));
        shared::card::check(&options.output, one_file, options.force)?;
    }
    let (groups, stored) = group::sort(options, &adapters, &blocks)?;
    let mut groups = group::name_for(groups, &adapters, convention)?;
    group::settle(options, &adapters, &settings, &mut groups)?;
    let sums = sum::sums(&stored, &groups, &adapters, method, convention)?;
    let dtype = options.dtype.unwrap_or_else(|| widest_of(&adapters));
    let carried = replacements(options, &adapters, convention)?;
    let policy = options.rank.map(|rank| rank.to_string());
    let default = match (method.elementwise(), space) {
        (Some(_), Space::Delta) => "the inputs' highest",
        (Some(_), Space::Factors) => "as the method leaves it",
        _ if method.keeps_factors => "as the method leaves it",
        _ => "lossless",
    };
    let mut planned: Vec<_> = groups.iter().map(|group| group.planned(adapters.len())).collect();
    planned.sort_by(|a, b| natural(&a.name, &b.name));
    let plan = Plan {
        method: method.name,
        chosen,
        space: method.elementwise().map(|_| space.name()),
        rank: policy.unwrap_or_else(|| default.to_owned()),
        convention: target.name,
        output: options.output.clone(),
        modules: planned,
        stored: sums.iter().map(|sum| sum.name.clone()).collect(),
        replacements: carried.labels(),
        warnings: [carried.warnings.as_slice(), &left_over::warnings(&options.output)].concat(),
    };
    let options = options.clone();
    let combine = Combine {
        plan,
        adapters,
        groups,
        sums,
        method,
        space,
        settings,
        convention,
        target,
        dtype,
        carried,
        options,
    };
    check_methods(&combine)?;
    check_budget(&combine)?;
    combine.destination().rehearse(carry::rehearsal(&combine)?)?;
    Ok(combine)
}

/// Fails if a method does not take these inputs.
fn check_methods(combine: &Combine) -> Result<()> {
    for group in &combine.groups {
        let inputs: Vec<_> =
            group.members.iter().map(|member| (member.rank, member.scale)).collect();
        let (adapters, settings) = (combine.adapters.len(), combine.settings(group));
        (combine.method.check)(&Sketch { inputs: &inputs, adapters, settings })
            .map_err(|refusal| ErrorKind::BadOption(refusal.to_string()))
            .in_tensor(&group.name)?;
    }
    Ok(())
}

impl Combine {
    /// Computes and writes the result.
    ///
    /// # Errors
    /// I/O, a method that cannot combine these inputs, a budget that does not reach, an overflow of
    /// the dtype; nothing is left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let (new, done) = self.computed(progress)?;
        let inputs: Vec<&Checkpoint> = self.adapters.iter().map(|adapter| &adapter.file).collect();
        let card = self.options.card.then(|| card(self, &self.report(&done, 0)));
        let bytes = self.destination().write_with(new, &inputs, card.as_ref(), &())?;
        Ok(self.report(&done, bytes))
    }

    /// Computes the result as [`Combine::run`] does, and writes nothing: what the ranks, the errors and the size
    /// would be.
    ///
    /// # Errors
    /// As [`Combine::run`], but for those of writing.
    pub fn preview(&self, progress: &dyn Progress) -> Result<Report> {
        let (new, done) = self.computed(progress)?;
        let bytes = self.destination().file_bytes(new)?;
        Ok(Report { dry_run: true, ..self.report(&done, bytes) })
    }

    fn computed(&self, progress: &dyn Progress) -> Result<(NewAdapter, Vec<ModuleSums>)> {
        let pool = thread_pool(self.options.threads)?;
        let (mut modules, done) = pool.install(|| compute::all(self, progress))?;
        let lambda = self.settings.number(&LAMBDA);
        for sum in &self.sums {
            modules.push(sum.add(&self.adapters, lambda, self.dtype)?);
        }
        Ok((carry::assemble(self, modules)?, done))
    }
}
