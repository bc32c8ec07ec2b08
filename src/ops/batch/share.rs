//! A batch shared out by its items. Each waits beside its own output; what is noted of them waits beside the plan.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::Item;
use super::open::{Batch, Options};
use super::ready::{Ready, ready};
use super::report::{ItemReport, Report, Status};
use super::run::report;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Access;
use crate::format::folder::{files_below, make_parent};
use crate::format::shared_staging::{SharedStaging, fingerprint};
use crate::format::staging::is_there;
use crate::ops::job::document::{self, Written};
use crate::ops::job::identity::Inputs;
use crate::ops::job::note::{Note, State};
use crate::ops::job::shared::{PartOf, Parts, Shared, ToShare, Workplace, check_free};
use crate::ops::thread_pool;

/// The items of a batch, as a plan has them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Items {
    /// What their paths are relative to.
    folder: PathBuf,
    access: Access,
    force: bool,
    list: Vec<Item>,
}

/// What will be made of an item.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedItem {
    /// Its verb and input.
    pub item: String,
    /// Where its result will be; a check has none.
    pub output: Option<PathBuf>,
    /// Bytes of its inputs.
    pub bytes: u64,
}

/// The items of a plan, ready to be worked on.
pub(in crate::ops) struct SharedBatch {
    document: PathBuf,
    access: Access,
    plan: Vec<PlannedItem>,
    items: Vec<Ready>,
}

impl Batch {
    /// Writes the plan down for others to work on.
    ///
    /// # Errors
    /// If items write beside their outputs; if an input cannot be read, or the file not be written.
    pub fn write_plan(self, file: &Path, workers: Option<usize>) -> Result<Written> {
        let refuse = |reason: &str| Err(ErrorKind::BadOption(reason.to_owned()).into());
        if self.options.skip_done {
            return refuse(
                "--plan goes without --skip-done: what workers have made is not made again",
            );
        }
        let (items, mut inputs) = (self.items, Inputs::default());
        for item in &items {
            if !item.asked.beside().is_empty() {
                return refuse("--plan takes no items with a `receipt` or a `residual`");
            }
            let (adapters, models) = item.asked.inputs();
            for adapter in adapters {
                match adapter.is_dir() {
                    true => inputs.whole(files_below(adapter)?.into_iter().map(|file| file.path)),
                    false => inputs.whole([adapter.to_path_buf()]),
                }
            }
            models.into_iter().try_for_each(|model| inputs.path(model))?;
        }
        let inputs = thread_pool(self.options.threads)?.install(|| inputs.identify())?;
        let Options { access, force, .. } = self.options;
        let options = Items {
            folder: self.folder,
            access,
            force,
            list: items.iter().map(|item| item.item.clone()).collect(),
        };
        let open = SharedBatch::new(file, access, items);
        let (output, warnings) = (file.to_path_buf(), Vec::new());
        document::write(ToShare { options, inputs, open, output, warnings }, file, workers)
    }
}

impl SharedBatch {
    fn new(document: &Path, access: Access, items: Vec<Ready>) -> Self {
        let planned = |item: &Ready| PlannedItem {
            item: item.item.name(),
            output: item.asked.output().map(Path::to_path_buf),
            bytes: item.bytes,
        };
        let plan = items.iter().map(planned).collect();
        Self { document: document.to_path_buf(), access, plan, items }
    }

    fn item(&self, number: usize) -> Result<&Ready> {
        Ok(self.items.get(number).ok_or(ErrorKind::NotFound)?)
    }
}

impl Shared for Items {
    const KIND: &'static str = "batch";
    type Plan = Vec<PlannedItem>;
    type Open = SharedBatch;

    fn open(&self, _planned: Self::Plan, document: &Path) -> Result<SharedBatch> {
        let items = ready(self.list.clone(), &self.folder, self.access)?;
        Ok(SharedBatch::new(document, self.access, items))
    }

    fn force(&self) -> bool {
        self.force
    }
}

/// The name that an item's result has, also while it waits.
fn name_of(output: &Path) -> Result<&str> {
    let name = output.file_name().and_then(|name| name.to_str());
    name.ok_or(ErrorKind::NotFound).in_file(output)
}

impl Parts for SharedBatch {
    type Plan = Vec<PlannedItem>;
    type Report = Report;

    fn plan(&self) -> &Self::Plan {
        &self.plan
    }

    fn parts(&self) -> Vec<PartOf> {
        let part = |item: &PlannedItem| PartOf { name: item.item.clone(), bytes: item.bytes };
        self.plan.iter().map(part).collect()
    }

    fn place(&self) -> &Path {
        &self.document
    }

    fn is_committed(&self) -> bool {
        let mut outputs = self.plan.iter().filter_map(|item| item.output.as_ref()).peekable();
        outputs.peek().is_some() && outputs.all(|output| is_there(output))
    }

    fn check_output(&self, force: bool) -> Result<()> {
        for item in &self.items {
            let (adapters, models) = item.asked.inputs();
            let inputs = adapters.into_iter().chain(models).map(Path::to_path_buf);
            if let Some(output) = item.asked.output() {
                make_parent(output)?;
                check_free(output, &inputs.collect::<Vec<_>>(), force)?;
            }
        }
        Ok(())
    }

    fn at_once(&self, threads: usize) -> usize {
        threads
    }

    fn make(&self, number: usize, at: &Workplace<'_>) -> Result<Note> {
        let item = self.item(number)?;
        let mut asked = item.asked.clone();
        asked.set(self.access, at.threads);
        let place = match item.asked.output() {
            Some(output) => {
                Some((SharedStaging::join(output, &at.staging.key())?, name_of(output)?))
            }
            None => None,
        };
        if let Some((own, name)) = &place {
            asked.go_to(own.path(name), true);
        }
        let mut made = report(item, asked.run(&()));
        if let (Some(Value::Object(report)), Some(output)) = (&mut made.report, &made.output)
            && report.contains_key("output")
        {
            report.insert("output".to_owned(), output.to_string_lossy().into());
        }
        at.progress.advance(item.bytes);
        match &place {
            Some((waiting, name)) if made.status != Status::Failed => {
                let files = waiting.take(name)?;
                Note::new(&made.item, files, |file| waiting.fingerprint(file), &made)
            }
            _ => Note::new(&made.item, Vec::new(), |_| None, &made),
        }
    }

    fn why_failed(&self, note: &Note) -> Option<String> {
        let made: ItemReport = note.said()?;
        (made.status == Status::Failed).then(|| made.reason.unwrap_or_default())
    }

    fn look(&self, number: usize, note: &Note, _staging: &SharedStaging) -> State {
        let (Ok(item), Some(made)) = (self.item(number), note.said::<ItemReport>()) else {
            return State::Altered;
        };
        let name = item.item.name();
        let output = match item.asked.output() {
            _ if made.status == Status::Failed => return State::Failed,
            Some(output) => output,
            None => return note.state(&name, |_| None),
        };
        let own = SharedStaging::at(output);
        let in_place = |file: &str| fingerprint(&output.parent()?.join(file));
        match note.state(&name, |file| own.fingerprint(file)) {
            // A commit that was cut short has put it in place.
            State::Missing if note.state(&name, in_place) == State::Whole => State::Whole,
            state => state,
        }
    }

    fn finish(self, notes: Vec<Note>, staging: SharedStaging, force: bool) -> Result<Report> {
        let made: Vec<ItemReport> = notes.iter().filter_map(Note::said).collect();
        let mut places = Vec::new();
        for (item, made) in self.items.iter().zip(&made) {
            let Some(output) = item.asked.output() else { continue };
            let (own, name) = (SharedStaging::at(output), name_of(output)?);
            let is_made = made.status != Status::Failed;
            let waiting = is_made && own.holds(name)?;
            if waiting {
                check_free(output, &[], force)?;
            }
            places.push((own, name, waiting));
        }
        for (own, name, waiting) in places {
            match waiting {
                true => own.commit_as(name, force)?,
                false if own.is_begun()? => own.remove()?,
                false => {}
            }
        }
        staging.remove()?;
        Ok(Report::new(self.document, made))
    }
}
