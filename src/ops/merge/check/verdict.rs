//! What a comparison of a merged checkpoint with its plan found.

use serde::Serialize;

/// Faults that are listed; more only count.
const LISTED: usize = 100;

/// A tensor or a file that is not what it should be.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Fault {
    /// The tensor's name; of a whole file none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The file's path below the checkpoint; of a tensor none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

impl Fault {
    pub(super) fn of_file(relative: &str, what: String) -> Self {
        Self { tensor: None, file: Some(relative.to_owned()), what }
    }

    pub(super) fn of_tensor(name: &str, what: String) -> Self {
        Self { tensor: Some(name.to_owned()), file: None, what }
    }

    /// What the fault is of: the tensor, or the file.
    pub fn place(&self) -> &str {
        self.tensor.as_deref().or(self.file.as_deref()).unwrap_or_default()
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether everything is as it should be.
    pub ok: bool,
    /// Weight files and files beside them whose headers, or whole bytes, were compared.
    pub files: usize,
    /// Tensors that should have the base's bytes.
    pub copied: usize,
    /// Tensors of which rows were computed again in f64.
    pub recomputed: usize,
    /// Of those, the ones that a method made for which no independent formula is known here: the
    /// method's own code made their rows again.
    pub same_code: usize,
    /// Rows of all tensors.
    pub rows: u64,
    /// Of those, compared byte by byte with the base or with a second run of the merge.
    pub rows_compared: u64,
    /// Of those, computed again in f64.
    pub rows_recomputed: u64,
    /// Elements computed again in f64.
    pub elements: u64,
    /// The largest distance from the f64 result, relative to the largest element of the tensor's update.
    pub largest_error: f64,
    /// What rounding to the stored dtype (and f32 accumulation) allows there.
    pub allowed_error: f64,
    /// How many faults there are.
    pub fault_count: usize,
    /// The first of them.
    pub faults: Vec<Fault>,
    /// Files that are there too, and that a merge does not write.
    pub others: Vec<String>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Report {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < LISTED {
            self.faults.push(fault);
        }
    }
}
