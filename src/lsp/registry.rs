//! Which language servers are known: the built-in manifests, and those in `<config dir>/language-servers/*.toml`. A file that can't be
//! used is reported and changes nothing else.

use std::path::Path;
use std::sync::Arc;

use super::error::Error;
use super::manifest::Manifest;
use crate::config::{Bounds, as_usize};
use crate::rt::manifests::{Entry, Folder, Kept, Problem};

/// The built-in manifests; of those for one language and role, the first that is installed is used.
const BUILT_IN: [(&str, &str); 16] = [
    ("typescript", include_str!("../../language-servers/typescript.toml")),
    ("pyright", include_str!("../../language-servers/pyright.toml")),
    ("basedpyright", include_str!("../../language-servers/basedpyright.toml")),
    ("pylsp", include_str!("../../language-servers/pylsp.toml")),
    ("ruff", include_str!("../../language-servers/ruff.toml")),
    ("rust-analyzer", include_str!("../../language-servers/rust-analyzer.toml")),
    ("gopls", include_str!("../../language-servers/gopls.toml")),
    ("clangd", include_str!("../../language-servers/clangd.toml")),
    ("jdtls", include_str!("../../language-servers/jdtls.toml")),
    ("vscode-html", include_str!("../../language-servers/vscode-html.toml")),
    ("vscode-css", include_str!("../../language-servers/vscode-css.toml")),
    ("vscode-json", include_str!("../../language-servers/vscode-json.toml")),
    ("yaml", include_str!("../../language-servers/yaml.toml")),
    ("bash", include_str!("../../language-servers/bash.toml")),
    ("dockerfile", include_str!("../../language-servers/dockerfile.toml")),
    ("lua", include_str!("../../language-servers/lua.toml")),
];

/// The language servers at one moment.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) manifests: Vec<Arc<Manifest>>,
    pub(super) problems: Vec<Problem>,
}

impl Roster {
    pub(super) fn get(&self, id: &str) -> Result<Arc<Manifest>, Error> {
        let found = self.manifests.iter().find(|manifest| manifest.id == id);
        found.cloned().ok_or_else(|| Error::UnknownServer { server: id.to_owned() })
    }

    /// Those for a file of this name, with the language that it has there.
    pub(super) fn for_file(&self, name: &str) -> Vec<(Arc<Manifest>, String)> {
        let of = |manifest: &Arc<Manifest>| Some((Arc::clone(manifest), manifest.language_of(name)?.to_owned()));
        self.manifests.iter().filter_map(of).collect()
    }
}

/// Reads manifests, and again when they changed. Blocks on the file system.
pub(super) struct Registry {
    folder: Folder,
    current: Kept<Roster>,
}

impl Registry {
    pub(super) fn new(config_dir: &Path, bounds: &Bounds) -> Self {
        let folder = Folder {
            dir: config_dir.join("language-servers"),
            max_files: as_usize(bounds.lsp_manifests_max),
            max_bytes: bounds.lsp_manifest_max_bytes,
            variables: ["SANDBOXD_LSP_MANIFESTS_MAX", "SANDBOXD_LSP_MANIFEST_MAX_BYTES"],
        };
        Self { folder, current: Kept::default() }
    }

    /// The servers as the files say now. Users' own come first: they are preferred.
    pub(super) fn roster(&self) -> Arc<Roster> {
        self.current.get(&self.folder, |entries| {
            let roster = self.load(entries);
            for problem in &roster.problems {
                tracing::warn!(path = %problem.path.display(), reason = problem.reason, "language server's manifest not used");
            }
            roster
        })
    }

    fn load(&self, entries: &[Entry]) -> Roster {
        let mut roster = Roster::default();
        for (index, entry) in entries.iter().enumerate() {
            let manifest = self.folder.read(index, entry).and_then(|text| Manifest::parse(&text));
            match manifest {
                Ok(manifest) if roster.get(&manifest.id).is_ok() => {
                    let reason = format!("another file already describes language server {:?}", manifest.id);
                    roster.problems.push(Problem { path: entry.0.clone(), reason });
                }
                Ok(manifest) => roster.manifests.push(Arc::new(manifest)),
                Err(reason) => roster.problems.push(Problem { path: entry.0.clone(), reason }),
            }
        }
        for (id, text) in BUILT_IN {
            match Manifest::parse(text) {
                Ok(manifest) if roster.get(&manifest.id).is_err() => roster.manifests.push(Arc::new(manifest)),
                Ok(_) => {}                                                    // a user's own stands for it
                Err(error) => tracing::error!(id, error, "built-in manifest"), // a test keeps this from happening
            }
        }
        roster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(dir: &Path) -> Registry {
        Registry::new(dir, &Bounds { lsp_manifests_max: 3, lsp_manifest_max_bytes: 4096, ..Bounds::default() })
    }

    fn ids(found: &[(Arc<Manifest>, String)]) -> Vec<(&str, &str)> {
        found.iter().map(|(manifest, language)| (manifest.id.as_str(), language.as_str())).collect()
    }

    #[test]
    fn built_in_manifests_are_valid_and_files_find_theirs() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let roster = registry(dir.path()).roster();
        assert_eq!(roster.manifests.len(), BUILT_IN.len());
        assert!(BUILT_IN.iter().all(|(id, _)| roster.get(id).is_ok()));
        let schema = serde_json::from_str(include_str!("../../schemas/language-server.schema.json")).expect("JSON");
        let schema = jsonschema::validator_for(&schema).expect("a schema");
        for (id, text) in BUILT_IN {
            let manifest: serde_json::Value = toml::from_str(text).expect("TOML");
            let errors: Vec<_> = schema.iter_errors(&manifest).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{id}: {errors:?}");
        }
        let python = ["pyright", "basedpyright", "pylsp", "ruff"].map(|id| (id, "python"));
        assert_eq!(ids(&roster.for_file("a.py")), python);
        assert_eq!(ids(&roster.for_file("b.tsx")), [("typescript", "typescriptreact")]);
        assert!(roster.for_file("c.unknown").is_empty());
    }

    #[test]
    fn users_own_come_first_replace_and_are_checked() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let folder = dir.path().join("language-servers");
        std::fs::create_dir(&folder).expect("created");
        let text = "schema = 1\nid = 'ruff'\nname = 'Mine'\nlanguages = [{ id = 'python', globs = ['*.py'] }]\nlaunch = { path_names = ['x'] }\n";
        std::fs::write(folder.join("a.toml"), text).expect("written");
        std::fs::write(folder.join("b.toml"), text).expect("written");
        std::fs::write(folder.join("c.toml"), "schema = 7").expect("written");
        let registry = registry(dir.path());
        let roster = registry.roster();
        assert_eq!(ids(&roster.for_file("a.py"))[0], ("ruff", "python"));
        assert_eq!((roster.manifests.len(), roster.problems.len()), (BUILT_IN.len(), 2));
        std::fs::remove_file(folder.join("a.toml")).expect("removed");
        std::fs::remove_file(folder.join("b.toml")).expect("removed");
        assert_eq!(registry.roster().get("ruff").expect("there").name, "Ruff");
    }
}
