//! Having language servers: npm or pip put them into a directory of ours, in one step.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::manifest::{Manifest, Packages};
use super::places::how_to_install;
use super::{Error, Lsp};
use crate::config::{as_duration, as_usize};
use crate::processes::{ChildSpec, Exit, Owner};
use crate::rt::files::find_executable;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

/// What was installed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Which server.
    pub server: String,
    /// Its executable.
    pub path: String,
    /// It was there already.
    pub already_installed: bool,
}

impl Lsp {
    /// Installs a server; `reinstall` although it is there. Callers that ask at the same time wait for one another. Dropping the future
    /// doesn't stop it.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], [`Error::NotInstalled`] when nobody can but a person, [`Error::InstallFailed`].
    pub async fn install(&self, server: &str, reinstall: bool) -> Result<Installed, Error> {
        let (lsp, server) = (self.clone(), server.to_owned());
        let installing = spawn_owned("lsp-install", async move {
            let _one = lsp.inner.installing.enter(&server).await;
            let manifest = lsp
                .blocking({
                    let server = server.clone();
                    move |inner| inner.registry.roster().get(&server)
                })
                .await?;
            let there = lsp
                .blocking({
                    let manifest = Arc::clone(&manifest);
                    move |inner| inner.places.program(&manifest)
                })
                .await;
            if let Some(path) = there.filter(|_| !reinstall) {
                return Ok(Installed { server, path: path.display().to_string(), already_installed: true });
            }
            let path = lsp.put_in_place(&manifest).await?;
            Ok(Installed { server, path: path.display().to_string(), already_installed: false })
        });
        installing.await.map_err(|_| Error::Stopping)?
    }

    /// Made beside, then moved there: what is there works until then.
    async fn put_in_place(&self, manifest: &Manifest) -> Result<PathBuf, Error> {
        let place = self.inner.places.installation(&manifest.id);
        let staging = place.with_file_name(format!(".{}", new_id(&manifest.id)));
        let made = self.make(manifest, &staging).await;
        let put = match made {
            Ok(bin) => {
                replace(&staging, &place).map(|()| place.join(bin)).map_err(|error| failed(manifest, error.to_string(), ""))
            }
            Err(error) => Err(error),
        };
        if put.is_err() {
            let _ = tokio::fs::remove_dir_all(&staging).await; // there is none
        }
        put
    }

    /// The executable, within the staging directory.
    async fn make(&self, manifest: &Manifest, staging: &Path) -> Result<PathBuf, Error> {
        let (program, args, packages, bin_dir) = match (&manifest.install.npm, &manifest.install.pip) {
            (Some(npm), _) => ("npm", npm_args(npm, staging), npm, "node_modules/.bin"),
            (None, Some(pip)) => ("python3", pip_args(pip, staging), pip, "python/bin"),
            (None, None) => return Err(Error::NotInstalled { what: manifest.name.clone(), help: how_to_install(manifest) }),
        };
        let path = find_executable(program, &self.inner.places.env.search_path());
        let path = path.ok_or_else(|| failed(manifest, format!("{program} is needed for it: install it"), ""))?;
        std::fs::create_dir_all(staging).map_err(|error| failed(manifest, error.to_string(), ""))?;
        let spec = ChildSpec { program: path, args, cwd: Some(staging.to_owned()), env: Vec::new(), owner: Owner::System };
        let bounds = &self.inner.bounds;
        let time = as_duration(bounds.lsp_install_timeout_ms);
        let run = self.inner.children.errand(&spec, time, as_usize(bounds.agent_install_output_max_bytes), |_| {}).await;
        let (exit, output) = run.map_err(|error| failed(manifest, error.to_string(), ""))?;
        match exit {
            Some(Exit::Code(0)) => {}
            Some(exit) => return Err(failed(manifest, format!("{program} ended with {exit}"), &output)),
            None => {
                return Err(failed(
                    manifest,
                    format!("{program} took longer than {} ms", bounds.lsp_install_timeout_ms),
                    &output,
                ));
            }
        }
        let bin = Path::new(bin_dir).join(&packages.bin);
        if !crate::rt::files::is_executable(&staging.join(&bin)) {
            return Err(failed(manifest, format!("the packages have no executable {}", packages.bin), &output));
        }
        Ok(bin)
    }
}

/// No install scripts run: none of these servers needs one.
fn npm_args(npm: &Packages, staging: &Path) -> Vec<OsString> {
    let fixed = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", "--prefix"];
    let fixed = fixed.into_iter().map(OsString::from);
    fixed.chain([staging.into()]).chain(npm.packages.iter().map(OsString::from)).collect()
}

fn pip_args(pip: &Packages, staging: &Path) -> Vec<OsString> {
    let fixed = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--target"]
        .into_iter()
        .map(OsString::from);
    fixed.chain([staging.join("python").into()]).chain(pip.packages.iter().map(OsString::from)).collect()
}

fn failed(manifest: &Manifest, why: String, output_tail: &str) -> Error {
    Error::InstallFailed { server: manifest.id.clone(), why, output_tail: output_tail.to_owned() }
}

fn replace(staging: &Path, place: &Path) -> std::io::Result<()> {
    let old = place.with_file_name(format!(".{}", new_id("old")));
    let had = std::fs::rename(place, &old).is_ok();
    std::fs::rename(staging, place)?;
    if had { std::fs::remove_dir_all(old) } else { Ok(()) }
}
