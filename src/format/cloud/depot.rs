//! Where the files of an output wait in a store while several machines make it: objects beside the output, under
//! `.NAME.work/`, which a commit copies within the store.

use std::path::Path as LocalPath;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload, UploadPart,
};

use super::bucket::{Bucket, wait};
use super::upload::{MOST_AT_ONCE, MOST_PARTS, ON_THE_WAY, PART, Upload, is_taken, rank};
use crate::error::Result;
use crate::format::kept::beside;
use crate::format::remote::Depot;

/// Objects up to this size are copied by one request; stores take no more.
const ONE_COPY: u64 = 5 << 30;
/// Copies at once.
const AT_ONCE: usize = 8;

/// The objects beside an output.
#[derive(Debug)]
pub(super) struct Beside {
    /// Where they wait.
    waiting: Bucket,
    /// Where the output will be.
    output: Bucket,
}

impl Beside {
    /// Of an output, whether anything waits for it or not.
    pub(super) fn of(output: &Bucket) -> Self {
        let name = output.name();
        let work = beside(LocalPath::new(&name), ".work").to_string_lossy().into_owned();
        let mut parts: Vec<_> = output.path.parts().collect();
        parts.pop();
        let path = parts.into_iter().collect::<Path>().join(work.as_str());
        let folder = output.location.trim_end_matches('/').rsplit_once('/');
        let folder = folder.map_or("", |(folder, _)| folder);
        let location = format!("{folder}/{work}");
        let waiting = Bucket { path, location, ..output.clone() };
        Self { waiting, output: output.clone() }
    }

    fn at(&self, name: &str) -> Path {
        below(&self.waiting.path, name)
    }

    /// Waits for an answer of the store.
    fn ask<T>(&self, asked: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        let local = |error| self.waiting.local(LocalPath::new("threads"), &error);
        Ok(wait(asked).map_err(local)?.map_err(|error| self.waiting.error(&error))?)
    }

    /// The objects that wait below a name, each with its path below it.
    async fn below(&self, name: &str) -> object_store::Result<Vec<(String, ObjectMeta)>> {
        let root = self.at(name);
        let all: Vec<ObjectMeta> = self.waiting.store.list(Some(&root)).try_collect().await?;
        let named = |meta: ObjectMeta| {
            let parts = meta.location.prefix_match(&root)?;
            let words: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            Some((words.join("/"), meta))
        };
        Ok(all.into_iter().filter_map(named).collect())
    }

    /// Copies an object within the store.
    async fn copy(&self, from: &ObjectMeta, to: &Path) -> object_store::Result<()> {
        if self.output.copies && from.size <= ONE_COPY {
            return self.output.store.copy(&from.location, to).await;
        }
        let mut upload = self.output.store.put_multipart(to).await?;
        let copied = self.copy_parts(from, upload.as_mut()).await;
        if copied.is_err() {
            // What cannot be taken back is removed by the store's own rules; the first error is the one to tell.
            let _ = upload.abort().await;
        }
        copied
    }

    /// Copies an object through this machine, where no request does it.
    async fn copy_parts(
        &self,
        from: &ObjectMeta,
        upload: &mut dyn MultipartUpload,
    ) -> object_store::Result<()> {
        let part = PART.max(from.size.div_ceil(MOST_PARTS));
        let at_once = (ON_THE_WAY / part).max(1) as usize;
        let mut sending: FuturesUnordered<UploadPart> = FuturesUnordered::new();
        let mut at = 0;
        while at < from.size {
            let end = from.size.min(at + part);
            let bytes = self.output.store.get_range(&from.location, at..end).await?;
            if sending.len() == at_once
                && let Some(sent) = sending.next().await
            {
                sent?;
            }
            sending.push(upload.put_part(PutPayload::from(bytes)));
            at = end;
        }
        while let Some(sent) = sending.next().await {
            sent?;
        }
        upload.complete().await.map(|_| ())
    }

    /// Lets what waits below a name appear as the output, the file by which others find the rest last.
    async fn appear(&self, below: &str, force: bool) -> object_store::Result<()> {
        let mut files = self.below(below).await?;
        files.sort_by_key(|(name, _)| rank(LocalPath::new(name)));
        let place = |name: &str| name.split('/').fold(self.output.path.clone(), Path::join);
        let to =
            |name: &String| if name.is_empty() { self.output.path.clone() } else { place(name) };
        let Some((last, others)) = files.split_last() else { return Ok(()) };
        let copies =
            others.iter().map(|(name, meta)| async move { self.copy(meta, &to(name)).await });
        let copied: object_store::Result<Vec<()>> =
            stream::iter(copies).buffer_unordered(AT_ONCE).try_collect().await;
        let shown = match copied {
            Ok(_) => self.last(&last.1, &to(&last.0), force).await,
            Err(error) => Err(error),
        };
        if !force && matches!(shown, Err(ref error) if !is_taken(error)) {
            for (name, _) in &files {
                // What was not copied is not there to be removed; the first error is the one to tell.
                let _ = self.output.store.delete(&to(name)).await;
            }
        }
        shown
    }

    /// Copies the last file, only if nothing is there.
    async fn last(&self, from: &ObjectMeta, to: &Path, force: bool) -> object_store::Result<()> {
        if force || from.size > MOST_AT_ONCE {
            return self.copy(from, to).await;
        }
        let bytes = self.output.store.get(&from.location).await?.bytes().await?;
        let options = PutOptions::from(PutMode::Create);
        self.output.store.put_opts(to, PutPayload::from(bytes), options).await.map(|_| ())
    }

    async fn remove_below(&self, name: &str) -> object_store::Result<()> {
        for (_, meta) in self.below(name).await? {
            self.waiting.store.delete(&meta.location).await?;
        }
        Ok(())
    }
}

/// What has a name below a place; the empty name is the place's own.
fn below(place: &Path, name: &str) -> Path {
    name.split('/').filter(|part| !part.is_empty()).fold(place.clone(), Path::join)
}

impl Depot for Beside {
    fn location(&self) -> String {
        self.waiting.location.clone()
    }

    fn send(&self, name: &str, local: &LocalPath) -> Result<()> {
        let place = Bucket {
            path: self.at(name),
            location: format!("{}/{name}", self.waiting.location),
            ..self.waiting.clone()
        };
        Upload { bucket: place }.send(local, true)
    }

    fn claim(&self, name: &str, text: &[u8]) -> Result<()> {
        let payload = PutPayload::from(text.to_vec());
        let options = PutOptions::from(PutMode::Create);
        let put = async {
            match self.waiting.store.put_opts(&self.at(name), payload, options).await {
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.ask(put)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.ask(async {
            match self.waiting.store.get(&self.at(name)).await {
                Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn state(&self, name: &str) -> Result<Option<String>> {
        self.ask(async {
            match self.waiting.store.head(&self.at(name)).await {
                Ok(meta) => {
                    Ok(Some(format!("{} bytes, {}", meta.size, meta.e_tag.unwrap_or_default())))
                }
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn names(&self, below: &str) -> Result<Vec<String>> {
        let found = self.ask(self.below(below))?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    fn show(&self, below: &str, force: bool) -> Result<()> {
        // Others may have written there while the parts were made.
        Upload { bucket: self.output.clone() }.check_free(force)?;
        let local = |error| self.output.local(LocalPath::new("threads"), &error);
        let shown = wait(self.appear(below, force)).map_err(local)?;
        Ok(shown.map_err(|error| self.output.error(&error))?)
    }

    fn remove(&self, below: &str) -> Result<()> {
        self.ask(self.remove_below(below))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::error::Error;

    fn output() -> Bucket {
        Bucket {
            store: Arc::new(InMemory::new()),
            path: Path::from("models/merged"),
            location: "s3://bucket/models/merged/".to_owned(),
            lists: true,
            copies: true,
        }
    }

    fn names(bucket: &Bucket) -> Vec<String> {
        let all = wait(bucket.store.list(None).try_collect::<Vec<_>>()).unwrap().unwrap();
        let mut names: Vec<_> = all.iter().map(|meta| meta.location.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_wait_beside_the_output_and_appear_at_once() {
        let output = output();
        let depot = Beside::of(&output);
        assert_eq!(depot.location(), "s3://bucket/models/.merged.work");
        depot.claim("plan", b"this").unwrap();
        depot.claim("plan", b"another").unwrap();
        assert_eq!(depot.get("plan").unwrap().unwrap(), b"this");
        assert_eq!(depot.get("part").unwrap(), None);
        let send = |name: &str, text: &str| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            depot.send(&format!("out/{name}"), file.path())
        };
        for (name, text) in [("a.safetensors", "a"), ("x/b.json", "b"), ("m.index.json", "index")] {
            send(name, text).unwrap();
        }
        assert!(names(&output).iter().all(|name| name.starts_with("models/.merged.work/")));
        let before = depot.state("out/a.safetensors").unwrap().unwrap();
        send("a.safetensors", "c").unwrap();
        assert_ne!(depot.state("out/a.safetensors").unwrap().unwrap(), before);
        assert_eq!(depot.state("out/none").unwrap(), None);
        depot.show("out", false).unwrap();
        depot.remove("").unwrap();
        let expected =
            ["models/merged/a.safetensors", "models/merged/m.index.json", "models/merged/x/b.json"];
        assert_eq!(names(&output), expected);
        let exists = send("m.index.json", "index").and_then(|()| depot.show("out", false));
        assert!(exists.as_ref().err().map(Error::to_string).unwrap().contains("exists"));
        assert!(names(&output).contains(&"models/merged/m.index.json".to_owned()));
        depot.show("out", true).unwrap();
    }
}
