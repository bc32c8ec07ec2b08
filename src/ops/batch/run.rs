//! A batch on one machine: several items at once, the threads shared among them.

use std::ffi::OsString;
use std::path::Path;

use super::asked::{Answer, Asked};
use super::open::Batch;
use super::ready::Ready;
use super::report::{ItemReport, Report, Status};
use crate::error::{Error, Result};
use crate::format::folder::make_parent;
use crate::ops::shared::pool::spread;
use crate::ops::{Progress, thread_pool};

/// Hears of every item as it ends.
type Tell<'a> = &'a (dyn Fn(&ItemReport) + Sync);

impl Batch {
    /// Does all items that are to be done. Items that fail are reported, and do not stop the others unless that was
    /// asked for.
    ///
    /// # Errors
    /// If the folder of an output cannot be made, or threads not be started.
    pub fn run(&self, progress: &dyn Progress, tell: Tell<'_>) -> Result<Report> {
        for item in self.items.iter().filter(|item| !item.is_done) {
            item.asked.output().map_or(Ok(()), make_parent)?;
        }
        self.each(progress, tell, |item, threads| {
            let mut asked = item.asked.clone();
            self.shape(&mut asked, threads);
            asked.run(&())
        })
    }

    /// Opens the adapters of all items and plans each; nothing is written.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn dry_run(&self, progress: &dyn Progress, tell: Tell<'_>) -> Result<Report> {
        self.each(progress, tell, |item, threads| {
            let mut asked = item.asked.clone();
            self.shape(&mut asked, threads);
            // A folder that is still to be made keeps nobody from planning.
            let output = item.asked.output();
            if let Some(name) = output.and_then(Path::file_name)
                && let Some(above) = output.and_then(missing_parent)
            {
                // By another name, which no input in that folder has.
                let mut planned = OsString::from(".planned-");
                planned.push(name);
                asked.go_to(above.join(planned), true);
            }
            asked.plan()
        })
    }

    fn shape(&self, asked: &mut Asked, threads: usize) {
        if let Some(output) = asked.output().map(Path::to_path_buf) {
            asked.go_to(output, self.options.force);
        }
        asked.set(self.options.access, threads);
    }

    fn each(
        &self,
        progress: &dyn Progress,
        tell: Tell<'_>,
        work: impl Fn(&Ready, usize) -> Result<Answer> + Sync,
    ) -> Result<Report> {
        let cores = thread_pool(self.options.threads)?.current_num_threads();
        let asked = if self.options.at_once == 0 { cores } else { self.options.at_once };
        let mut pieces: Vec<usize> =
            (0..self.items.len()).filter(|at| !self.is_done(*at)).collect();
        // The largest first, so that none of them is left when the others are done.
        pieces.sort_by_key(|at| std::cmp::Reverse(self.items.get(*at).map(|item| item.bytes)));
        let at_once = asked.min(pieces.len()).max(1);
        let threads = (cores / at_once).max(1);
        progress.begin(self.items.iter().filter(|item| !item.is_done).map(|item| item.bytes).sum());
        let work = |at: usize| {
            let item = self.items.get(at)?;
            let report = report(item, work(item, threads));
            progress.advance(item.bytes);
            tell(&report);
            Some(report)
        };
        let is_last = |report: &Option<ItemReport>| {
            let failed = |report: &ItemReport| {
                matches!(report.status, Status::Failed | Status::No | Status::Unknown)
            };
            self.options.fail_fast && report.as_ref().is_some_and(failed)
        };
        let mut done = spread(&pieces, at_once, work, is_last)?;
        let reports = self.items.iter().enumerate().map(|(at, item)| {
            let done = done.get_mut(at).and_then(Option::take).flatten();
            done.unwrap_or_else(|| not_begun(item))
        });
        Ok(Report::new(self.options.jobs.clone(), reports.collect()))
    }

    fn is_done(&self, at: usize) -> bool {
        self.items.get(at).is_none_or(|item| item.is_done)
    }
}

/// The nearest folder above an output whose own folder is still to be made.
fn missing_parent(output: &Path) -> Option<&Path> {
    let exists = |folder: &Path| folder.as_os_str().is_empty() || folder.is_dir();
    let above = output.ancestors().skip(1).find(|folder| exists(folder))?;
    (output.parent() != Some(above)).then_some(above)
}

/// What became of an item.
pub(super) fn report(item: &Ready, answer: Result<Answer>) -> ItemReport {
    let base = of(item, Status::Done);
    match answer {
        Ok(Answer { status, reason, report }) => {
            ItemReport { status, reason, report: Some(report), ..base }
        }
        Err(error) => {
            let hint = Error::hint(&error);
            ItemReport { status: Status::Failed, reason: Some(error.to_string()), hint, ..base }
        }
    }
}

fn not_begun(item: &Ready) -> ItemReport {
    match item.is_done {
        true => of(item, Status::Skipped),
        false => of(item, Status::Stopped),
    }
}

fn of(item: &Ready, status: Status) -> ItemReport {
    ItemReport {
        item: item.item.name(),
        verb: item.item.verb.clone(),
        line: item.item.keys.place.line,
        output: item.asked.output().map(Path::to_path_buf),
        status,
        reason: None,
        hint: None,
        report: None,
    }
}
