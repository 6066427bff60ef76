//! Puts skills where agents look, and takes away those that aren't configured any more. Blocks on the disk.

use std::collections::BTreeSet;
use std::path::Path;

use super::failure::Failure;
use super::find::{Place, is_name};
use super::git::without_secrets;
use super::record::{Made, Record};
use super::tree::{Limits, Tree};
use super::{Fetched, SkillOutcome, SkillStatus};
use crate::config::Bounds;

/// Where agents look: Claude Code in the first, those that follow the common convention in the second.
const PLACES: [&str; 2] = [".claude/skills", ".agents/skills"];

/// Makes the skills of a directory those of these sources.
pub(super) fn place(directory: &Path, sources: Vec<Fetched>, bounds: &Bounds) -> Vec<SkillOutcome> {
    let before = Record::read(directory);
    let record = Record(before.0.clone());
    let (kept, left_bytes) = (BTreeSet::new(), bounds.skills_total_max_bytes);
    let mut job = Job { directory, bounds, record, kept, applied: 0, left_bytes, outcomes: Vec::new() };
    for source in sources {
        job.source(&source);
    }
    job.remove_others();
    if job.record != before
        && let Err(failure) = job.record.write(directory)
    {
        job.outcomes.push(outcome("", "", None, Err(failure)));
    }
    job.outcomes
}

/// One directory's skills, in the making.
struct Job<'a> {
    directory: &'a Path,
    bounds: &'a Bounds,
    record: Record,
    /// Skills that are configured, and those of sources that can't be had now.
    kept: BTreeSet<String>,
    applied: u64,
    left_bytes: u64,
    outcomes: Vec<SkillOutcome>,
}

fn outcome(name: &str, source: &str, skill: Option<&str>, result: Result<SkillStatus, Failure>) -> SkillOutcome {
    SkillOutcome {
        name: name.to_owned(),
        source: without_secrets(source),
        skill: skill.map(str::to_owned),
        status: *result.as_ref().unwrap_or(&SkillStatus::Failed),
        error: result.err().map(|failure| failure.to_string()),
        note: None,
    }
}

impl Job<'_> {
    fn source(&mut self, fetched: &Fetched) {
        let Fetched { name, source, .. } = fetched;
        let (root, skills) = match find(fetched) {
            Ok(found) => found,
            Err(failure) => {
                self.outcomes.push(outcome(name, &source.source, None, Err(failure)));
                let of_it = self.record.0.iter().filter(|(_, made)| made.name == *name && made.source == shown(fetched));
                self.kept.extend(of_it.map(|(skill, _)| skill.clone()));
                return;
            }
        };
        let note = fetched.folder.as_ref().ok().and_then(|copy| copy.note.clone());
        let chosen = |skill: &String| source.skills.as_ref().is_none_or(|wanted| wanted.contains(skill));
        for (skill, folder) in skills.iter().filter(|(skill, _)| chosen(skill)) {
            let result = self.skill(fetched, &root, skill, folder);
            let outcome = outcome(name, &source.source, Some(skill), result);
            self.outcomes.push(SkillOutcome { note: note.clone(), ..outcome });
        }
        for missing in source.skills.iter().flatten().filter(|wanted| !skills.iter().any(|(skill, _)| skill == *wanted)) {
            self.outcomes.push(outcome(name, &source.source, Some(missing), Err(Failure::NoSuchSkill)));
        }
    }

    fn skill(&mut self, from: &Fetched, root: &Path, skill: &str, folder: &Path) -> Result<SkillStatus, Failure> {
        if !is_name(skill) {
            return Err(Failure::BadName);
        }
        if !self.kept.insert(skill.to_owned()) {
            return Err(Failure::Twice);
        }
        if self.applied >= self.bounds.skills_max {
            return Err(Failure::TooMany(self.bounds.skills_max));
        }
        let tree = Tree::read(folder, &Limits { root, bounds: self.bounds, left_bytes: self.left_bytes })?;
        self.applied += 1;
        self.left_bytes -= tree.size_bytes();
        let ours = self.record.0.get(skill).cloned().unwrap_or_default();
        let (name, source, digest) = (from.name.clone(), shown(from), tree.digest());
        let mut made = Made { name, source, digest, places: BTreeSet::new() };
        let (mut status, mut failed) = (SkillStatus::Unchanged, None);
        for place in PLACES {
            match self.put(skill, &tree, place, &ours, &mut made) {
                Ok(SkillStatus::Unchanged) => {}
                Ok(other) => status = other,
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        if !made.places.is_empty() {
            self.record.0.insert(skill.to_owned(), made);
        }
        failed.map_or(Ok(status), Err)
    }

    fn put(&self, skill: &str, tree: &Tree, place: &str, ours: &Made, made: &mut Made) -> Result<SkillStatus, Failure> {
        let target = self.directory.join(place).join(skill);
        let there = self.there(&target);
        let is_ours = ours.places.contains(place) && there.as_ref() == Some(&Some(ours.digest.clone()));
        if there.as_ref() == Some(&Some(made.digest.clone())) {
            if is_ours {
                made.places.insert(place.to_owned());
            }
            return Ok(SkillStatus::Unchanged);
        }
        if there.is_some() && !is_ours {
            return Err(Failure::Foreign(target));
        }
        tree.write(&target).map_err(|error| Failure::io(&target, &error))?;
        made.places.insert(place.to_owned());
        Ok(SkillStatus::Applied)
    }

    /// The digest of what is there; the inner `None` is something that can't be ours.
    fn there(&self, target: &Path) -> Option<Option<String>> {
        let metadata = std::fs::symlink_metadata(target).ok()?;
        if !metadata.is_dir() {
            return Some(None);
        }
        let root = target.canonicalize().ok()?;
        let limits = Limits { root: &root, bounds: self.bounds, left_bytes: self.bounds.skills_total_max_bytes };
        Some(Tree::read(&root, &limits).ok().map(|tree| tree.digest()))
    }

    fn remove_others(&mut self) {
        let others: Vec<_> = self.record.0.keys().filter(|skill| !self.kept.contains(*skill)).cloned().collect();
        for skill in others {
            let Some(made) = self.record.0.remove(&skill) else { continue };
            let result = self.remove(&skill, &made);
            self.outcomes.push(outcome(&made.name, &made.source, Some(&skill), result));
        }
    }

    fn remove(&self, skill: &str, made: &Made) -> Result<SkillStatus, Failure> {
        let mut result = Ok(SkillStatus::Removed);
        for target in made.places.iter().map(|place| self.directory.join(place).join(skill)) {
            match self.there(&target) {
                None => {}
                Some(Some(digest)) if digest == made.digest => {
                    let removed = std::fs::remove_dir_all(&target).map_err(|error| Failure::io(&target, &error));
                    result = result.and_then(|status| removed.map(|()| status));
                }
                Some(_) => result = Err(Failure::Foreign(target)),
            }
        }
        result
    }
}

/// The source as it is recorded.
fn shown(fetched: &Fetched) -> String {
    without_secrets(&fetched.source.source)
}

type Found = (std::path::PathBuf, Vec<(String, std::path::PathBuf)>);

/// The root of a source, and its skills.
fn find(fetched: &Fetched) -> Result<Found, Failure> {
    let folder = &fetched.folder.as_ref().map_err(Clone::clone)?.folder;
    let root = folder.canonicalize().map_err(|error| Failure::io(folder, &error))?;
    let last = fetched.source.source.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let name = match last.trim_end_matches(".git") {
        "" | "." | ".." => root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    let skills = Place { root: &root, subpath: fetched.source.subpath.as_deref(), name: &name }.find()?;
    Ok((root, skills))
}
