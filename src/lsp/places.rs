//! Where a language server lies, how it is started, and which directory it looks at.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::manifest::{Manifest, RootRule};
use crate::config::{Dirs, Env};
use crate::processes::{ChildSpec, Owner};
use crate::rt::files::find_executable;

/// How far up a root is looked for.
const DEPTH_MAX: usize = 64;

/// What resolving looks at.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) dirs: Dirs,
    pub(super) env: Env,
}

impl Places {
    /// Where we install a server.
    pub(super) fn installation(&self, id: &str) -> PathBuf {
        self.dirs.data.join("language-servers").join(id)
    }

    /// Where users' manifests lie.
    pub(super) fn manifests(&self) -> PathBuf {
        self.dirs.config.join("language-servers")
    }

    /// Directories with executables of ours for a server, the first one first.
    fn own(&self, manifest: &Manifest) -> [PathBuf; 2] {
        let installation = self.installation(&manifest.id);
        [installation.join("node_modules/.bin"), installation.join("python/bin")]
    }

    /// Its executable. Blocks on the file system.
    pub(super) fn program(&self, manifest: &Manifest) -> Option<PathBuf> {
        let own = self.own(manifest);
        let packages = manifest.install.npm.iter().chain(&manifest.install.pip);
        let installed = packages.filter_map(|packages| find_executable(&packages.bin, &own)).next();
        let dirs: Vec<_> = std::iter::once(self.dirs.bin()).chain(self.env.search_path()).collect();
        installed.or_else(|| manifest.launch.path_names.iter().find_map(|name| find_executable(name, &dirs)))
    }

    /// How it is started for a root. Blocks on the file system.
    ///
    /// # Errors
    /// [`Error::NotInstalled`].
    pub(super) fn launch(&self, manifest: &Manifest, root: &Path) -> Result<ChildSpec, Error> {
        let missing = || Error::NotInstalled { what: manifest.name.clone(), help: how_to_install(manifest) };
        let program = self.program(manifest).ok_or_else(missing)?;
        let unset = manifest.launch.env.iter().filter(|(name, _)| self.env.get(name).is_none());
        let mut env: Vec<(OsString, OsString)> = unset.map(|(name, value)| (name.into(), value.into())).collect();
        let python = self.installation(&manifest.id).join("python");
        if program.starts_with(&python) {
            env.push(("PYTHONPATH".into(), python.into()));
        }
        let args = manifest.launch.args.iter().map(OsString::from).collect();
        Ok(ChildSpec { program, args, cwd: Some(root.to_owned()), env, owner: Owner::Lsp })
    }
}

/// What somebody does who wants a server.
pub(super) fn how_to_install(manifest: &Manifest) -> String {
    let ours = manifest.install.npm.is_some() || manifest.install.pip.is_some();
    let ask = ours.then(|| format!("POST /v1/lsp/install {{\"server\":{:?}}}", manifest.id));
    let path = format!("put {} on PATH", manifest.launch.path_names.join(" or "));
    let hint = manifest.install.hint.as_ref().map(|hint| format!("install it ({hint})"));
    ask.into_iter().chain(hint).chain([path]).collect::<Vec<_>>().join(", or ")
}

/// The root for a file: the nearest directory above it with a marker, or the farthest in its repository; else the repository, else
/// `base` when the file lies below it, else the file's directory. Blocks on the file system.
pub(super) fn root_of(file: &Path, manifest: &Manifest, base: &Path) -> PathBuf {
    let directory = file.parent().unwrap_or(file);
    let mut found = None;
    let mut repository = None;
    for above in directory.ancestors().take(DEPTH_MAX) {
        if manifest.root_markers.iter().any(|marker| above.join(marker).exists()) {
            found = Some(above);
            if manifest.root == RootRule::Nearest {
                break;
            }
        }
        if above.join(".git").exists() {
            repository = Some(above);
            break;
        }
        if above == base {
            break;
        }
    }
    let below_base = Some(base).filter(|base| base.parent().is_some() && directory.starts_with(base));
    found.or(repository).or(below_base).unwrap_or(directory).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_found_by_markers_then_by_its_repository() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let base = dir.path();
        let make = |path: &str| {
            std::fs::create_dir_all(base.join(path).parent().expect("a parent")).expect("created");
            std::fs::write(base.join(path), "").expect("written");
        };
        ["w/.git", "w/Cargo.toml", "w/a/Cargo.toml", "w/a/src/x.rs", "w/b/y.py", "z/q/n.py"].into_iter().for_each(make);
        let text =
            "schema = 1\nid = 'x'\nname = 'X'\nlanguages = [{ id = 'y', globs = ['*'] }]\nlaunch = { path_names = ['x'] }\n";
        let nearest = Manifest::parse(&format!("root_markers = ['Cargo.toml']\n{text}")).expect("valid");
        let farthest = Manifest::parse(&format!("root_markers = ['Cargo.toml']\nroot = 'farthest'\n{text}")).expect("valid");
        let none = Manifest::parse(text).expect("valid");
        let root = |file: &str, manifest: &Manifest| {
            let root = root_of(&base.join(file), manifest, base);
            root.strip_prefix(base).expect("below").display().to_string()
        };
        assert_eq!(root("w/a/src/x.rs", &nearest), "w/a");
        assert_eq!(root("w/a/src/x.rs", &farthest), "w");
        assert_eq!(root("w/b/y.py", &none), "w");
        assert_eq!(root("z/q/n.py", &nearest), "", "the base");
        assert_eq!(root_of(&base.join("z/q/n.py"), &nearest, Path::new("/nowhere")), base.join("z/q"));
    }
}
