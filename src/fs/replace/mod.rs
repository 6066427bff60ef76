//! Replacing at many places: first a plan that says what would change, with the hash of each file; then each file is changed
//! if it still has that hash. A file is changed at all its places or at none; one that has moved on is told and stays.
//!
//! ```text
//!  plan: walk ─▶ read, match ─▶ {path, sha256, changes}…      apply: read ─▶ same hash? ─▶ match again ─▶ write if still so
//! ```

mod changes;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grep_matcher::Matcher as _;
use grep_regex::RegexMatcher;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::changes::Changes;
use super::draft::{Expected, Fsync};
use super::entry::Kind;
use super::hash::Sha256Hex;
use super::search::Pattern;
use super::walk::{IsOver, Skipped, Walk, Wanted, until};
use super::{Error, Fs, Located, Reach, blocking, read, shown};
use crate::config::{Bounds, as_usize};
use crate::rt::spawn_owned;

/// So many places one replacement may start at.
const PLACES_MAX: usize = 100;

/// What is replaced.
#[derive(Debug, Clone, Default)]
pub struct Replace {
    /// What is looked for.
    pub pattern: Pattern,
    /// What takes its place; `$1` and `${name}` are groups of the pattern, unless that is literal.
    pub replacement: String,
    /// Files, and trees whose files are changed.
    pub places: Vec<Located>,
    /// Which files of those.
    pub wanted: Wanted,
    /// The file is on the disk before it is answered.
    pub fsync: Fsync,
}

/// A file that is to be changed.
#[derive(Debug, Clone)]
pub struct ReplaceFile {
    /// Which.
    pub at: Located,
    /// The content that the plan saw.
    pub expected: Sha256Hex,
    /// Only these matches of the plan; `None` for all.
    pub only: Option<Vec<u64>>,
}

/// What is done, compiled.
struct Work {
    matcher: RegexMatcher,
    replacement: Vec<u8>,
    is_literal: bool,
    bounds: Bounds,
}

/// A file that has matches.
struct Planned {
    at: Located,
    hash: Sha256Hex,
    shown: Value,
}

/// All of them, as far as they were looked for.
struct Plan {
    files: Vec<Planned>,
    matches: u64,
    reason: Option<&'static str>,
    skipped: Skipped,
}

impl Fs {
    /// What a replacement would change: `{"files": [{"path", "sha256", "changes"}], "matches", "truncated"}`. Dropping the
    /// future ends it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for patterns, [`Error::NotFound`], [`Error::Outside`], [`Error::Denied`].
    pub async fn plan_replace(&self, reach: &Reach, replace: Replace) -> Result<Value, Error> {
        self.plan_of(reach, &replace, true).await.map(Plan::answer)
    }

    /// Changes what fits now, without a plan. Dropping the future doesn't stop it once files are being changed.
    ///
    /// # Errors
    /// As [`Fs::plan_replace`]; what befalls a single file is in the answer.
    pub async fn replace_all(&self, reach: &Reach, replace: Replace) -> Result<Value, Error> {
        let plan = self.plan_of(reach, &replace, false).await?;
        let files = plan.files.into_iter().map(|file| ReplaceFile { at: file.at, expected: file.hash, only: None });
        let mut answer = self.apply_files(reach, replace, files.collect(), false).await?;
        answer["truncated"] = plan.reason.is_some().into();
        if let Some(reason) = plan.reason {
            answer["reason"] = reason.into();
        }
        plan.skipped.show(&mut answer);
        Ok(answer)
    }

    /// Changes files as planned, each if it is still what the plan saw: `{"files": [{"path", "status", …}], …}`. Dropping
    /// the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the pattern, [`Error::TooMuch`] for more files than `fs_replace_files_max`; what befalls a
    /// single file is in the answer.
    pub async fn apply_replace(&self, reach: &Reach, replace: Replace, files: Vec<ReplaceFile>) -> Result<Value, Error> {
        self.apply_files(reach, replace, files, true).await
    }

    /// `is_told`: the author knows what the files have, for it says their hashes.
    async fn apply_files(&self, reach: &Reach, replace: Replace, files: Vec<ReplaceFile>, is_told: bool) -> Result<Value, Error> {
        let max = self.inner.bounds.fs_replace_files_max;
        if files.len() as u64 > max {
            return Err(Error::TooMuch { what: "files in one replacement".to_owned(), max, bound: "fs_replace_files_max" });
        }
        let work = Arc::new(Work::new(&replace, &self.inner.bounds)?);
        let (fs, reach) = (self.clone(), reach.clone());
        let apply = spawn_owned("fs-replace", async move {
            let mut results = Vec::with_capacity(files.len());
            for file in files {
                results.push(fs.apply_one(&reach, &work, file, replace.fsync, is_told).await);
            }
            results
        });
        let results = apply.await.map_err(|_| Error::Stopping)?;
        let count = |status: &str| results.iter().filter(|result| result["status"] == status).count();
        let (written, conflicts, failed) = (count("written"), count("conflict"), count("failed"));
        Ok(json!({"files": results, "written": written, "conflicts": conflicts, "failed": failed}))
    }

    async fn apply_one(&self, reach: &Reach, work: &Arc<Work>, file: ReplaceFile, fsync: Fsync, is_told: bool) -> Value {
        let ReplaceFile { at, expected, only } = file;
        let mut result = json!({});
        shown(&mut result, "path", at.path());
        let changed = {
            let (fs, reach, work, at, expected) = (self.clone(), reach.clone(), work.clone(), at.clone(), expected.clone());
            blocking(move || {
                let changed = work.changed(&reach, &at, &expected, only.as_deref())?;
                if !is_told && changed.1 > 0 {
                    fs.must_know(&reach, &at, &expected)?;
                }
                Ok(changed)
            })
            .await
        };
        let written = match changed {
            Ok((_, 0)) => {
                result["status"] = "unchanged".into();
                return result;
            }
            Ok((content, matches)) => {
                result["matches"] = matches.into();
                self.write(reach, at, content, Expected::Content(vec![expected.clone()]), fsync).await
            }
            Err(error) => Err(error),
        };
        result["sha256Before"] = expected.as_str().into();
        match written {
            Ok(written) => {
                result["status"] = "written".into();
                result["sha256"] = written.hash.as_str().into();
            }
            Err(error) => {
                let is_conflict = matches!(error, Error::Changed { .. } | Error::NotFound(_) | Error::Stale(_));
                result["status"] = if is_conflict { "conflict" } else { "failed" }.into();
                result["code"] = error.code().into();
                result["error"] = error.to_string().into();
                if let Error::Changed { found, .. } = error {
                    result["sha256"] = json!(found);
                }
            }
        }
        result
    }

    async fn plan_of(&self, reach: &Reach, replace: &Replace, is_shown: bool) -> Result<Plan, Error> {
        let work = Work::new(replace, &self.inner.bounds)?;
        if replace.places.is_empty() || replace.places.len() > PLACES_MAX {
            return Err(Error::Invalid(format!("a replacement starts at between 1 and {PLACES_MAX} paths")));
        }
        let permit = self.inner.searches.clone().acquire_owned().await.map_err(|_| Error::Stopping)?;
        let (reach, places, wanted) = (reach.clone(), replace.places.clone(), replace.wanted.clone());
        let (asked, waits) = oneshot::channel::<()>(); // closed when the future is dropped
        let deadline = Instant::now() + Duration::from_millis(work.bounds.fs_search_timeout_ms);
        let plan = blocking(move || {
            let _permit = permit;
            let is_over = until(deadline, move || asked.is_closed());
            work.plan(&reach, &places, &wanted, is_shown, &is_over)
        })
        .await;
        drop(waits);
        plan
    }
}

impl Plan {
    fn answer(self) -> Value {
        let files: Vec<Value> = self.files.into_iter().map(|file| file.shown).collect();
        let mut answer = json!({"matches": self.matches, "truncated": self.reason.is_some(), "files": files});
        if let Some(reason) = self.reason {
            answer["reason"] = reason.into();
        }
        self.skipped.show(&mut answer);
        answer
    }
}

/// A plan that grows.
struct Growing<'a> {
    work: &'a Work,
    is_shown: bool,
    bytes_left: u64,
    /// The file that is looked into.
    buffer: Vec<u8>,
    /// Places may lie within each other.
    seen: HashSet<Located>,
    plan: Plan,
}

impl Work {
    fn new(replace: &Replace, bounds: &Bounds) -> Result<Self, Error> {
        Ok(Self {
            matcher: replace.pattern.compile()?,
            replacement: replace.replacement.clone().into_bytes(),
            is_literal: replace.pattern.is_literal,
            bounds: bounds.clone(),
        })
    }

    fn plan(&self, reach: &Reach, places: &[Located], wanted: &Wanted, is_shown: bool, is_over: &IsOver) -> Result<Plan, Error> {
        let plan = Plan { files: Vec::new(), matches: 0, reason: None, skipped: Skipped::default() };
        let mut growing = Growing {
            work: self,
            is_shown,
            bytes_left: self.bounds.fs_search_answer_max_bytes,
            buffer: Vec::new(),
            seen: HashSet::new(),
            plan,
        };
        for at in places {
            let selection = wanted.compile(as_usize(self.bounds.fs_walk_depth_max))?;
            let walked = Walk::new(reach, at, selection, None, &self.bounds, IsOver::clone(is_over));
            let mut walk = match walked {
                Err(Error::NotADirectory(_)) => {
                    let (file, _) = read::open(reach, at)?;
                    growing.take(at.clone(), file);
                    continue;
                }
                walked => walked?,
            };
            while let Some(found) = walk.next() {
                if found.kind != Kind::File {
                    continue;
                }
                match found.open() {
                    Ok(file) => {
                        if !growing.take(Located::from(PathBuf::from(OsString::from_vec(found.path()))), file) {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {} // gone
                    Err(error) => growing.plan.skipped.add(found.path(), error.to_string()),
                }
            }
            growing.plan.skipped.join(std::mem::take(&mut walk.skipped));
            if growing.plan.reason.is_none() && walk.is_stopped() {
                growing.plan.reason = Some("time");
            }
            if growing.plan.reason.is_some() {
                break;
            }
        }
        Ok(growing.plan)
    }

    /// A content with its changes, and how many they are.
    fn changed(&self, reach: &Reach, at: &Located, expected: &Sha256Hex, only: Option<&[u64]>) -> Result<(Bytes, u64), Error> {
        let (file, _) = read::open(reach, at)?;
        let max = self.bounds.fs_search_heap_max_bytes;
        let mut content = Vec::new();
        if !fill(&mut content, file, max).map_err(|error| Error::io("read", at.path(), &error))? {
            return Err(Error::TooMuch { what: "a file's size".to_owned(), max, bound: "fs_search_heap_max_bytes" });
        }
        let hash = Sha256Hex::of(&content);
        if hash != *expected {
            return Err(Error::Changed { path: at.path().to_path_buf(), found: Some(hash.as_str().to_owned()) });
        }
        let changes = self.changes(&content).map_err(|error| error.of_file())?.only(only);
        Ok((changes.apply(&content).into(), changes.count()))
    }

    fn changes(&self, content: &[u8]) -> Result<Changes, changes::TooMany> {
        let replacement =
            if self.is_literal { changes::With::Text(&self.replacement) } else { changes::With::Groups(&self.replacement) };
        Changes::find(&self.matcher, content, &replacement, &self.bounds)
    }
}

impl Growing<'_> {
    /// Looks into a file; false when no more are taken.
    fn take(&mut self, at: Located, file: File) -> bool {
        let bounds = &self.work.bounds;
        let path = || at.path().as_os_str().as_bytes().to_vec();
        let content = &mut self.buffer;
        match fill(content, file, bounds.fs_search_heap_max_bytes) {
            Ok(true) => {}
            Ok(false) => {
                self.plan.skipped.add(path(), "larger than fs_search_heap_max_bytes");
                return true;
            }
            Err(error) => {
                self.plan.skipped.add(path(), error.to_string());
                return true;
            }
        }
        // What holds a NUL is no text.
        if memchr::memchr(0, content).is_some() || !self.work.matcher.is_match(content).unwrap_or_default() {
            return true;
        }
        let changes = match self.work.changes(content) {
            Ok(changes) => changes,
            Err(error) => {
                self.plan.skipped.add(path(), error.of_file().to_string());
                return true;
            }
        };
        if self.plan.files.len() as u64 >= bounds.fs_replace_files_max {
            self.plan.reason = Some("files");
            return false;
        }
        if !self.seen.insert(at.clone()) {
            return true;
        }
        let hash = Sha256Hex::of(content);
        let mut answer = json!({});
        if self.is_shown {
            shown(&mut answer, "path", at.path());
            answer["sha256"] = hash.as_str().into();
            answer["matches"] = changes.count().into();
            answer["changes"] = changes.show(content, as_usize(bounds.fs_search_line_max_bytes));
            let bytes = answer.to_string().len() as u64;
            if bytes > self.bytes_left {
                self.plan.reason = Some("bytes");
                return false;
            }
            self.bytes_left -= bytes;
        }
        self.plan.matches += changes.count();
        self.plan.files.push(Planned { at, hash, shown: answer });
        true
    }
}

/// All of a file into `into`; false when it is larger than that.
fn fill(into: &mut Vec<u8>, file: File, max_bytes: u64) -> io::Result<bool> {
    into.clear();
    let read = file.take(max_bytes + 1).read_to_end(into)?;
    Ok(read as u64 <= max_bytes)
}
