//! Which agents there are: the built-in manifests, and those in `<config dir>/agents/*.toml`. A file that can't be used is reported
//! and changes nothing else.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::manifest::Manifest;
use crate::config::Bounds;
use crate::rt::manifests::{Entry, Folder, Kept, Problem};

/// The built-in manifests, in the order in which agents are listed.
pub(super) const BUILT_IN: [(&str, &str); 8] = [
    ("claude", include_str!("../../agents/claude.toml")),
    ("codex", include_str!("../../agents/codex.toml")),
    ("opencode", include_str!("../../agents/opencode.toml")),
    ("amp", include_str!("../../agents/amp.toml")),
    ("pi", include_str!("../../agents/pi.toml")),
    ("cursor", include_str!("../../agents/cursor.toml")),
    ("gemini", include_str!("../../agents/gemini.toml")),
    ("mock", include_str!("../../agents/mock.toml")),
];

/// The agents at one moment.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) manifests: Vec<Arc<Manifest>>,
    pub(super) problems: Vec<Problem>,
}

impl Roster {
    pub(super) fn get(&self, id: &str) -> Result<Arc<Manifest>, Error> {
        let found = self.manifests.iter().find(|manifest| manifest.id == id);
        found.cloned().ok_or_else(|| Error::UnsupportedAgent { agent: id.to_owned() })
    }
}

/// Reads manifests, and again when they changed. All methods block on the file system.
pub(super) struct Registry {
    folder: Folder,
    current: Kept<Roster>,
}

impl Registry {
    pub(super) fn new(config_dir: &Path, bounds: &Bounds) -> Self {
        let folder = Folder {
            dir: config_dir.join("agents"),
            max_files: crate::config::as_usize(bounds.agent_manifests_max),
            max_bytes: bounds.agent_manifest_max_bytes,
            variables: ["SANDBOXD_AGENT_MANIFESTS_MAX", "SANDBOXD_AGENT_MANIFEST_MAX_BYTES"],
        };
        Self { folder, current: Kept::default() }
    }

    /// The agents as the files say now.
    pub(super) fn roster(&self) -> Arc<Roster> {
        self.current.get(&self.folder, |entries| {
            let roster = self.load(entries);
            for problem in &roster.problems {
                tracing::warn!(path = %problem.path.display(), reason = problem.reason, "agent manifest not used");
            }
            roster
        })
    }

    /// Writes a user's manifest as `<id>.toml`, replacing an earlier one.
    pub(super) fn add(&self, text: &str) -> Result<PathBuf, Error> {
        let origin = "the given manifest";
        let bad = |reason| Error::BadManifest { origin: origin.to_owned(), reason };
        self.folder.check_size(text.len() as u64).map_err(bad)?;
        let manifest = Manifest::parse(text, origin)?;
        let path = self.folder.dir.join(format!("{}.toml", manifest.id));
        let known = self.folder.entries();
        if known.len() >= self.folder.max_files && !known.iter().any(|(file, ..)| *file == path) {
            return Err(Error::TooManyManifests { max: self.folder.max_files as u64 });
        }
        let others = self.load(&known);
        let others = others.manifests.iter().filter(|other| other.id != manifest.id).map(Arc::as_ref);
        clash(&manifest, others).map_or(Ok(()), |reason| Err(bad(reason)))?;
        let written = self.folder.write(&path, text);
        written.map_err(|error| Error::ManifestNotWritten { path: path.clone(), cause: error.to_string() })?;
        Ok(path)
    }

    fn load(&self, entries: &[Entry]) -> Roster {
        let mut roster = Roster::default();
        for (id, text) in BUILT_IN {
            match Manifest::parse(text, id) {
                Ok(manifest) => roster.manifests.push(Arc::new(manifest)),
                Err(error) => tracing::error!(%error, "built-in manifest"), // a test keeps this from happening
            }
        }
        let mut seen = HashSet::new();
        let mut added = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match self.load_file(index, entry).and_then(|manifest| place(&mut roster, &mut seen, &mut added, manifest)) {
                Ok(()) => {}
                Err(reason) => roster.problems.push(Problem { path: entry.0.clone(), reason }),
            }
        }
        added.sort_by(|one, other| one.id.cmp(&other.id));
        roster.manifests.extend(added);
        roster
    }

    fn load_file(&self, index: usize, entry: &Entry) -> Result<Manifest, String> {
        let text = self.folder.read(index, entry)?;
        Manifest::parse(&text, &entry.0.display().to_string()).map_err(|error| match error {
            Error::BadManifest { reason, .. } => reason,
            other => other.to_string(),
        })
    }
}

/// Puts a user's manifest in the place of the built-in one of the same id, or behind all others.
fn place(
    roster: &mut Roster,
    seen: &mut HashSet<String>,
    added: &mut Vec<Arc<Manifest>>,
    manifest: Manifest,
) -> Result<(), String> {
    if !seen.insert(manifest.id.clone()) {
        return Err(format!("another file already describes agent {:?}", manifest.id));
    }
    let others = roster.manifests.iter().chain(added.iter()).map(Arc::as_ref);
    if let Some(reason) = clash(&manifest, others.filter(|other| other.id != manifest.id)) {
        return Err(reason);
    }
    match roster.manifests.iter_mut().find(|known| known.id == manifest.id) {
        Some(known) => *known = Arc::new(manifest),
        None => added.push(Arc::new(manifest)),
    }
    Ok(())
}

/// Launchers are files and installs are directories of one folder, so their names must differ.
fn clash<'a>(manifest: &Manifest, others: impl Iterator<Item = &'a Manifest>) -> Option<String> {
    let launcher = manifest.launcher();
    if launcher == manifest.id {
        return Some(format!("launch.launcher {launcher:?} can't be the id: choose another name"));
    }
    for other in others {
        let theirs = other.launcher();
        if theirs == launcher {
            return Some(format!("launch.launcher {launcher:?} is taken by agent {:?}: choose another name", other.id));
        }
        if theirs == manifest.id || launcher == other.id {
            return Some(format!("id and launcher names overlap with agent {:?}: choose another id or launcher", other.id));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: &str = "schema = 1\nid = 'mine'\nname = 'Mine'\nlaunch = { path_names = ['mine-acp'] }\n";

    fn registry(dir: &Path) -> Registry {
        Registry::new(dir, &Bounds { agent_manifests_max: 3, agent_manifest_max_bytes: 4096, ..Bounds::default() })
    }

    fn ids(registry: &Registry) -> Vec<String> {
        registry.roster().manifests.iter().map(|manifest| manifest.id.clone()).collect()
    }

    #[test]
    fn the_order_is_the_contract_s() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(ids(&registry(dir.path())), ["claude", "codex", "opencode", "amp", "pi", "cursor", "gemini", "mock"]);
    }

    #[test]
    fn a_dropped_file_is_seen_and_a_removed_one_goes() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let registry = registry(dir.path());
        assert!(registry.roster().get("mine").is_err());
        let path = registry.add(MINE).expect("written");
        assert_eq!(path, dir.path().join("agents/mine.toml"));
        assert_eq!(registry.roster().get("mine").expect("there").name, "Mine");
        assert!(Arc::ptr_eq(&registry.roster(), &registry.roster()), "read only once");
        registry.add(&MINE.replace("'Mine'", "'Meins'")).expect("replaced");
        assert_eq!(registry.roster().get("mine").expect("there").name, "Meins");
        std::fs::remove_file(path).expect("removed");
        assert!(registry.roster().get("mine").is_err());
    }

    #[test]
    fn a_built_in_agent_is_replaced_in_its_place_and_others_are_sorted_behind() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let registry = registry(dir.path());
        for id in ["zeta", "alpha", "codex"] {
            registry.add(&MINE.replace("mine", id)).expect("written");
        }
        let ids = ids(&registry);
        assert_eq!((ids[1].as_str(), &ids[8..]), ("codex", &["alpha".to_owned(), "zeta".to_owned()][..]));
        assert_eq!(registry.roster().get("codex").expect("there").name, "Mine");
        assert!(matches!(registry.add(MINE), Err(Error::TooManyManifests { max: 3 })));
    }

    #[test]
    fn bad_files_are_reported_and_change_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let agents = dir.path().join("agents");
        std::fs::create_dir(&agents).expect("created");
        let write = |name: &str, text: &str| std::fs::write(agents.join(name), text).expect("written");
        write("a.toml", "schema = ");
        write("b.toml", &"#".repeat(5000));
        write("c.toml", MINE);
        write("d.toml", &MINE.replace("mine", "over"));
        write("ignored.txt", "no manifest");
        let roster = registry(dir.path()).roster();
        assert!(roster.get("mine").is_ok() && roster.get("over").is_err());
        let reasons: Vec<_> = roster.problems.iter().map(|problem| problem.reason.as_str()).collect();
        assert_eq!(reasons.len(), 3);
        assert!(reasons[0].contains("TOML parse error"), "{}", reasons[0]);
        assert!(reasons[1].contains("5000 bytes") && reasons[2].contains("more than 3"), "{reasons:?}");
    }

    #[test]
    fn one_file_can_not_take_another_agent_s_place_on_disk() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let registry = registry(dir.path());
        let with = |id: &str, launcher: &str| {
            format!("schema = 1\nid = '{id}'\nname = 'X'\nlaunch = {{ path_names = ['x'], launcher = '{launcher}' }}")
        };
        for (id, launcher) in [("mine", "claude-acp"), ("claude-acp", "x"), ("mine", "claude"), ("mine", "mine")] {
            assert!(matches!(registry.add(&with(id, launcher)), Err(Error::BadManifest { .. })), "{id} {launcher}");
        }
        registry.add(&with("claude", "claude-acp")).expect("it is its own");
    }
}
