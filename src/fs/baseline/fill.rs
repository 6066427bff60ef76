//! Listing a directory and copying what there is no copy of. Blocks, on the thread that is made for it.

use std::fs::File as OpenFile;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, openat, readlinkat};

use super::Job;
use super::scratch::Scratch;
use super::view::{File, Stamp, View, What};
use crate::config::{Bounds, as_usize};
use crate::fs::entry::{Kind, Meta};
use crate::fs::history::image::{READ_ONLY, read};
use crate::fs::watch::{Own, Survey};
use crate::fs::{Error, Rights};

pub(super) struct Filler<'a> {
    pub(super) scratch: &'a Arc<Scratch>,
    pub(super) own: &'a Own,
    pub(super) bounds: &'a Bounds,
}

/// What is missing.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// Files that were not copied.
    pub(super) files: usize,
    /// False when not everything was listed.
    pub(super) is_whole: bool,
}

impl Cut {
    pub(super) fn is_any(&self) -> bool {
        self.files > 0 || !self.is_whole
    }
}

impl Filler<'_> {
    /// Fills a turn's view.
    ///
    /// # Errors
    /// As of a watch.
    pub(super) fn fill(&self, job: &Job) -> Result<Cut, Error> {
        let survey = Survey::new(&job.reach, &job.at, self.own, as_usize(self.bounds.fs_baseline_max_files))?;
        let directories = survey.directories();
        {
            let mut known = job.view.known();
            known.real_root = std::fs::canonicalize(job.at.path()).unwrap_or_default();
            known.is_remote = survey.is_remote();
            known.is_cut = !survey.is_whole();
            // Before anything is said of one: what is below another that isn't looked at yet isn't known.
            known.directories.extend(directories.iter().map(|(_, path)| (path.clone(), false)));
        }
        let mut copy = Copy { filler: self, job, left: self.bounds.fs_baseline_max_bytes, files_left_out: 0 };
        for (id, path) in directories {
            let Some(listed) = survey.listed(id) else { continue };
            // Unchanged since the beginning, it has been so when it was listed, too.
            let is_as_before =
                survey.is_whole() && Meta::of_open(&listed.directory).is_ok_and(|meta| job.view.is_as_before(&meta));
            for (name, kind) in listed.names {
                let below = path.join(&*name);
                if kind == Kind::Directory {
                    job.view.known().directories.entry(below).or_insert(false);
                } else {
                    copy.file(&listed.directory, Path::new(&*name), below);
                }
            }
            job.view.check_clock();
            job.view.known().directories.insert(path, is_as_before);
        }
        let cut = Cut { files: copy.files_left_out, is_whole: survey.is_whole() };
        job.view.known().is_cut = cut.is_any();
        Ok(cut)
    }
}

/// One directory's copies.
struct Copy<'a> {
    filler: &'a Filler<'a>,
    job: &'a Job,
    /// Bytes.
    left: u64,
    files_left_out: usize,
}

impl Copy<'_> {
    fn file(&mut self, directory: &OwnedFd, name: &Path, below: PathBuf) {
        // Gone meanwhile: then its directory has changed, and nothing is said of it.
        let Ok(meta) = Meta::of(directory, name) else { return };
        let previous = self.job.previous.as_deref().and_then(|previous| known_as(previous, &below, &meta));
        let (path, file) = previous.unwrap_or_else(|| {
            let (stamp, rights, is_settled) = (Stamp::of(&meta), Rights::of(&meta), self.job.view.is_settled(meta.changed));
            (below.into(), Arc::new(File { stamp, rights, what: self.what(directory, name, &meta), is_settled }))
        });
        match &file.what {
            What::Content(extent) if extent.stored_bytes() <= self.left => self.left -= extent.stored_bytes(),
            What::Content(_) | What::Unknown if meta.kind == Kind::File => self.files_left_out += 1,
            _ => {}
        }
        self.job.view.known().files.insert(path, file);
    }

    fn what(&self, directory: &OwnedFd, name: &Path, meta: &Meta) -> What {
        match meta.kind {
            Kind::File => self.content(directory, name, meta).unwrap_or(What::Unknown),
            Kind::Symlink => {
                let target = readlinkat(directory, name, Vec::new());
                let link = |target: std::ffi::CString| What::Link(std::ffi::OsStr::from_bytes(target.as_bytes()).into());
                target.map_or(What::Unknown, link)
            }
            _ => What::Unknown,
        }
    }

    fn content(&self, directory: &OwnedFd, name: &Path, meta: &Meta) -> Option<What> {
        if self.left == 0 {
            return None;
        }
        let file = OpenFile::from(openat(directory, name, READ_ONLY, Mode::empty()).ok()?);
        let is_it = |file: &OpenFile| Meta::of_open(file).is_ok_and(|now| Stamp::of(&now) == Stamp::of(meta));
        if !is_it(&file) {
            return None;
        }
        let content = read(&file, meta.size, self.filler.bounds.fs_preimage_max_bytes)?;
        let extent = self.filler.scratch.put(&content).ok()??;
        // Else it was changed while it was read.
        (extent.stored_bytes() <= self.left && is_it(&file)).then_some(What::Content(extent))
    }
}

/// The same file, known from before.
fn known_as(view: &View, below: &Path, meta: &Meta) -> Option<(Arc<Path>, Arc<File>)> {
    let known = view.known();
    let (path, file) = known.files.get_key_value(below)?;
    let is_usable = file.is_settled && file.stamp == Stamp::of(meta) && !matches!(file.what, What::Unknown);
    is_usable.then(|| (Arc::clone(path), Arc::clone(file)))
}
