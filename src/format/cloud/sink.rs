//! An output in a store: built on the local disk and then sent, or by several machines in parts that wait beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bucket::Bucket;
use super::depot::Beside;
use super::upload::Upload;
use crate::error::{CloudError, Result as Outcome};
use crate::format::remote::{self, Depot, Sink};

/// The local path of an output that goes to a store.
///
/// # Errors
/// [`CloudError`].
pub(in crate::format) fn output(location: &str) -> Result<PathBuf, CloudError> {
    let bucket = Bucket::open(location)?;
    if !bucket.lists {
        let reason = "a web server takes no output".to_owned();
        return Err(CloudError::BadLocation { location: location.to_owned(), reason });
    }
    let name = bucket.name();
    let path = remote::mirror(location, &name)
        .map_err(|error| bucket.local(Path::new("TMPDIR"), &error))?;
    remote::goes_to(path.clone(), Arc::new(Upload { bucket }));
    Ok(path)
}

impl Sink for Upload {
    fn depot(&self) -> Arc<dyn Depot> {
        Arc::new(Beside::of(&self.bucket))
    }

    fn check_free(&self, force: bool) -> Outcome<()> {
        Upload::check_free(self, force)
    }

    fn send(&self, local: &Path, force: bool) -> Outcome<()> {
        Upload::send(self, local, force)
    }
}
