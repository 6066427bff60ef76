//! Installs an npm package: staging directory, pinned integrity, then one rename.
//!
//! `<data>/bin/agent_processes/<id>/` holds one directory per installed version, the link `current` to the one in use,
//! and while an installation runs a `.staging-…`. No install script runs before the packages were compared with their
//! pinned integrity, and then only those of the packages that the manifest names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::Instant;

use super::error::{Error, InstallFailure};
use super::install::{Artifact, ArtifactKind, ArtifactSource, InstallOptions};
use super::manifest::{Manifest, NpmPackage};
use super::manifest_check::check_version;
use super::progress::{InstallPhase, Progress};
use super::{Inner, engines, files, launcher, npm_output, version};
use crate::config::as_usize;
use crate::processes::{ChildSpec, Owner};
use crate::rt::ids::new_id;

const STAGING_PREFIX: &str = ".staging-";
const LOCKFILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A package to install.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    package: String,
    version: String,
    /// Absent when the caller chose the version, or the manifest pins none.
    integrity: Option<String>,
    bin: String,
    kind: ArtifactKind,
    source: ArtifactSource,
}

impl Wanted {
    fn spec(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }
}

/// What goes wrong, with the end of npm's output.
type Failed = (InstallFailure, String);

fn quiet(reason: InstallFailure) -> Failed {
    (reason, String::new())
}

/// Installs the package of a manifest; the caller holds the agent's lock.
pub(super) async fn install(
    inner: &Inner,
    manifest: &Manifest,
    npm: &NpmPackage,
    options: &InstallOptions,
    progress: &Progress,
    deadline: Instant,
) -> Result<Vec<Artifact>, Error> {
    let base = inner.places.agent_processes().join(&manifest.id);
    let staging = base.join(format!("{STAGING_PREFIX}{}", new_id("npm")));
    let outcome = async {
        let wanted = plan(manifest, npm, options).map_err(quiet)?;
        let job = Job { inner, manifest, npm, wanted, base: base.clone(), staging: staging.clone(), progress, deadline };
        job.run().await
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        let _ = tokio::fs::remove_dir_all(&staging).await; // what stays, the next installation removes
    }
    outcome.map_err(|(reason, output_tail)| Error::InstallFailed { agent: manifest.id.clone(), reason, output_tail })
}

/// Decides which packages in which versions; the main one comes first.
fn plan(manifest: &Manifest, npm: &NpmPackage, options: &InstallOptions) -> Result<Vec<Wanted>, InstallFailure> {
    let adapter_asked = options.agent_process_version.as_deref();
    let agent_asked = options.agent_version.as_deref();
    if agent_asked.is_some() && !npm.agent_is_package && npm.companions.is_empty() {
        return Err(InstallFailure::AgentVersionFixed { agent: manifest.id.clone() });
    }
    let main_asked = adapter_asked.or(agent_asked.filter(|_| npm.agent_is_package));
    let main =
        want(&npm.package, npm.version.as_deref(), npm.integrity.as_ref(), &npm.bin, main_asked, ArtifactKind::AgentProcess)?;
    let mut wanted = vec![main];
    for (index, companion) in npm.companions.iter().enumerate() {
        let asked = agent_asked.filter(|_| index == 0);
        let (pinned, integrity) = (Some(companion.version.as_str()), companion.integrity.as_ref());
        wanted.push(want(&companion.package, pinned, integrity, &companion.bin, asked, ArtifactKind::NativeAgent)?);
    }
    Ok(wanted)
}

fn want(
    package: &str,
    pinned: Option<&str>,
    integrity: Option<&String>,
    bin: &str,
    asked: Option<&str>,
    kind: ArtifactKind,
) -> Result<Wanted, InstallFailure> {
    let (package, bin) = (package.to_owned(), bin.to_owned());
    let is_pinned = asked.is_none_or(|asked| Some(asked) == pinned);
    let Some(version) = asked.or(pinned) else { return Err(InstallFailure::NotPinned { package }) };
    check_version(version).map_err(|reason| InstallFailure::BadVersion { reason })?;
    let source = if is_pinned { ArtifactSource::Fallback } else { ArtifactSource::Registry };
    let integrity = integrity.filter(|_| is_pinned).cloned();
    Ok(Wanted { package, version: version.to_owned(), integrity, bin, kind, source })
}

/// One installation.
struct Job<'a> {
    inner: &'a Inner,
    manifest: &'a Manifest,
    npm: &'a NpmPackage,
    wanted: Vec<Wanted>,
    base: PathBuf,
    staging: PathBuf,
    progress: &'a Progress,
    deadline: Instant,
}

impl Job<'_> {
    async fn run(&self) -> Result<Vec<Artifact>, Failed> {
        let (npm, node) = self.tools().map_err(quiet)?;
        let node_version = self.command(&node, vec!["--version".into()], "node --version").await?.trim().to_owned();
        self.prepare().await.map_err(quiet)?;
        self.progress.step(InstallPhase::Downloading, self.specs());
        let output = self.command(&npm, self.install_args(), "npm install").await?;
        self.progress.step(InstallPhase::Verifying, self.specs());
        self.verify(&node_version).map_err(|reason| (reason, output))?;
        if !self.npm.run_scripts.is_empty() {
            self.command(&npm, self.rebuild_args(), "npm rebuild").await?;
        }
        self.check_executables().map_err(quiet)?;
        self.progress.step(InstallPhase::Linking, self.inner.places.launcher(self.manifest).display().to_string());
        self.put_in_place().await.map_err(quiet)
    }

    fn specs(&self) -> String {
        self.wanted.iter().map(Wanted::spec).collect::<Vec<_>>().join(" ")
    }

    fn tools(&self) -> Result<(PathBuf, PathBuf), InstallFailure> {
        let agent = || self.manifest.id.clone();
        let node = self.inner.places.on_path("node").ok_or_else(|| InstallFailure::NodeMissing { agent: agent() })?;
        let npm = self.inner.places.on_path("npm").ok_or_else(|| InstallFailure::NpmMissing { agent: agent() })?;
        Ok((npm, node))
    }

    /// Removes what earlier installations left, and makes the staging directory.
    async fn prepare(&self) -> Result<(), InstallFailure> {
        let io = |error: std::io::Error| InstallFailure::from_io(&self.base, &error);
        tokio::fs::create_dir_all(&self.base).await.map_err(io)?;
        for name in entries(&self.base).into_iter().filter(|name| name.starts_with(STAGING_PREFIX)) {
            tokio::fs::remove_dir_all(self.base.join(name)).await.map_err(io)?;
        }
        tokio::fs::create_dir(&self.staging).await.map_err(io)?;
        // With a package.json of its own, npm doesn't look for one further up.
        tokio::fs::write(self.staging.join("package.json"), "{\"private\":true}\n").await.map_err(io)
    }

    fn prefix_args(&self, command: &str) -> Vec<OsString> {
        vec![
            command.into(),
            "--prefix".into(),
            self.staging.clone().into_os_string(),
            "--global=false".into(),
            "--color=false".into(),
        ]
    }

    fn install_args(&self) -> Vec<OsString> {
        let mut args = self.prefix_args("install");
        // What a user's npmrc may say otherwise, and this depends on, is said here.
        args.extend(
            [
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                "--no-progress",
                "--save",
                "--save-exact",
                "--package-lock=true",
                "--omit=dev",
                "--include=optional",
                "--loglevel=http",
                "--fetch-retries=2",
                "--fetch-retry-mintimeout=1000",
                "--fetch-retry-maxtimeout=5000",
                "--",
            ]
            .map(OsString::from),
        );
        args.extend(self.wanted.iter().map(|wanted| wanted.spec().into()));
        args
    }

    fn rebuild_args(&self) -> Vec<OsString> {
        let mut args = self.prefix_args("rebuild");
        args.extend(["--ignore-scripts=false", "--foreground-scripts", "--"].map(OsString::from));
        args.extend(self.npm.run_scripts.iter().map(OsString::from));
        args
    }

    /// Runs a command within what is left of the time, and gives the end of its output.
    async fn command(&self, program: &Path, args: Vec<OsString>, step: &str) -> Result<String, Failed> {
        let cwd = Some(self.staging.clone()).filter(|dir| dir.is_dir());
        let spec = ChildSpec { program: program.to_owned(), args, cwd, env: Vec::new(), owner: Owner::System };
        let bounds = &self.inner.bounds;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let on_line = |line: &str| self.progress.line(&npm_output::without_hosts(line));
        let ran = self.inner.children.errand(&spec, left, as_usize(bounds.agent_install_output_max_bytes), on_line).await;
        let (exit, output) = ran.map_err(|error| quiet(InstallFailure::NotStarted { cause: error.to_string() }))?;
        let output = npm_output::without_hosts(&output);
        match exit {
            Some(exit) if exit.code() == Some(0) => Ok(output),
            Some(exit) => {
                let reason = npm_output::failure(step, &exit.to_string(), &output, &self.specs(), &self.base);
                Err((reason, output))
            }
            None => Err((InstallFailure::TimedOut { timeout_ms: bounds.agent_install_timeout_ms }, output)),
        }
    }

    /// Compares what npm downloaded with what is pinned, and the packages' needs with this Node.js.
    fn verify(&self, node_version: &str) -> Result<(), InstallFailure> {
        let path = self.staging.join("package-lock.json");
        let text = files::read_bounded(&path, LOCKFILE_MAX_BYTES).map_err(|error| InstallFailure::from_io(&path, &error))?;
        let lock: Value = serde_json::from_str(&text).unwrap_or_default(); // without entries, nothing matches below
        for wanted in &self.wanted {
            let entry = &lock["packages"][format!("node_modules/{}", wanted.package)];
            check_integrity(wanted, entry["integrity"].as_str())?;
            let package = version::package_json(&self.staging, &wanted.package).unwrap_or_default();
            let engines = package["engines"]["node"].as_str().unwrap_or("*");
            if !engines::fits(engines, node_version) {
                let (wanted_node, found) = (engines.to_owned(), node_version.into());
                return Err(InstallFailure::NodeTooOld { package: wanted.spec(), wanted: wanted_node, found });
            }
        }
        Ok(())
    }

    fn check_executables(&self) -> Result<(), InstallFailure> {
        let bins = self.staging.join("node_modules/.bin");
        match self.wanted.iter().find(|wanted| !files::is_executable(&bins.join(&wanted.bin))) {
            Some(wanted) => Err(InstallFailure::NoExecutable { package: wanted.spec(), bin: wanted.bin.clone() }),
            None => Ok(()),
        }
    }

    /// Renames the staging directory, turns `current` to it, and writes the launcher. Cut short between these, the
    /// earlier version stays in use.
    async fn put_in_place(&self) -> Result<Vec<Artifact>, InstallFailure> {
        let versions: Vec<_> = self.wanted.iter().map(|wanted| version::of_package(&self.staging, &wanted.package)).collect();
        let main_version = versions.first().and_then(Clone::clone).unwrap_or_default();
        let name = format!("{main_version}-{}", new_id("v"));
        let current = self.base.join("current");
        let earlier = std::fs::read_link(&current).ok();
        let launcher = self.inner.places.launcher(self.manifest);
        let bins = current.join("node_modules/.bin");
        let script = launcher::for_npm(self.manifest, &bins, &self.npm.bin, !self.npm.companions.is_empty());
        let place = || {
            std::fs::rename(&self.staging, self.base.join(&name))?;
            files::link_atomically(&current, Path::new(&name))?;
            launcher::write(&launcher, &script)
        };
        place().map_err(|error| InstallFailure::from_io(&self.base, &error))?;
        self.remove_older(&name, earlier.as_deref()).await;
        let artifact = |(wanted, version): (&Wanted, Option<String>)| {
            let path = if wanted.kind == ArtifactKind::AgentProcess { launcher.clone() } else { bins.join(&wanted.bin) };
            Artifact { kind: wanted.kind, path: path.display().to_string(), source: wanted.source, version }
        };
        Ok(self.wanted.iter().zip(versions).map(artifact).collect())
    }

    /// Removes all versions but this and the one before: agents that run from that one may still load files.
    async fn remove_older(&self, newest: &str, earlier: Option<&Path>) {
        for name in entries(&self.base) {
            let keep = name == newest || name == "current" || earlier.is_some_and(|earlier| earlier == Path::new(&name));
            if !keep && let Err(error) = tokio::fs::remove_dir_all(self.base.join(&name)).await {
                tracing::warn!(%error, name, "an old version of an agent can't be removed");
            }
        }
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn check_integrity(wanted: &Wanted, found: Option<&str>) -> Result<(), InstallFailure> {
    match &wanted.integrity {
        Some(expected) if !found.is_some_and(|found| found.split_whitespace().any(|one| one == expected)) => {
            Err(InstallFailure::IntegrityMismatch {
                package: wanted.spec(),
                expected: expected.clone(),
                found: found.unwrap_or("not given").into(),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::registry::BUILT_IN;

    fn plan_for(id: &str, agent: Option<&str>, adapter: Option<&str>) -> Result<Vec<Wanted>, InstallFailure> {
        let text = BUILT_IN.iter().find(|(name, _)| *name == id).expect("built in").1;
        let manifest = Manifest::parse(text, id).expect("valid");
        let npm = manifest.install.npm.clone().expect("an npm package");
        let (agent_version, agent_process_version) = (agent.map(str::to_owned), adapter.map(str::to_owned));
        plan(&manifest, &npm, &InstallOptions { reinstall: false, agent_version, agent_process_version })
    }

    #[test]
    fn the_pinned_version_is_compared_and_another_one_says_that_it_is_not() {
        let wanted = plan_for("claude", None, None).expect("planned");
        assert!(wanted[0].integrity.is_some() && wanted[0].source == ArtifactSource::Fallback);
        let wanted = plan_for("claude", None, Some("0.1.0")).expect("planned");
        assert_eq!(wanted[0].spec(), "@agentclientprotocol/claude-agent-acp@0.1.0");
        assert!(wanted[0].integrity.is_none() && wanted[0].source == ArtifactSource::Registry);
        let pinned = plan_for("claude", None, Some("0.49.0")).expect("planned");
        assert!(pinned[0].integrity.is_some(), "asking for the pinned version keeps its check");
    }

    #[test]
    fn the_agent_s_version_goes_to_the_package_that_is_the_agent() {
        assert_eq!(plan_for("opencode", Some("1.0.0"), None).expect("planned")[0].version, "1.0.0");
        let wanted = plan_for("pi", Some("0.1.0"), None).expect("planned");
        assert_eq!((wanted[0].version.as_str(), wanted[1].version.as_str()), ("0.0.34", "0.1.0"));
        assert!(matches!(plan_for("claude", Some("1.0.0"), None), Err(InstallFailure::AgentVersionFixed { .. })));
    }

    #[test]
    fn versions_can_not_smuggle_anything() {
        for bad in ["file:/etc", "git+https://x/y", "--global", "../x", "", "npm:evil@1"] {
            assert!(matches!(plan_for("claude", None, Some(bad)), Err(InstallFailure::BadVersion { .. })), "{bad:?}");
        }
        assert!(matches!(plan_for("amp", None, None), Err(InstallFailure::NotPinned { .. })));
        assert_eq!(plan_for("amp", None, Some("0.7.0")).expect("planned")[0].spec(), "amp-acp@0.7.0");
    }

    #[test]
    fn an_integrity_that_differs_or_is_missing_is_a_mismatch() {
        let wanted = plan_for("pi", None, None).expect("planned").remove(0);
        let expected = wanted.integrity.clone().expect("pinned");
        assert_eq!(check_integrity(&wanted, Some(&expected)), Ok(()));
        assert_eq!(check_integrity(&wanted, Some(&format!("sha1-x {expected}"))), Ok(()));
        for found in [None, Some("sha512-other"), Some(&expected[..90])] {
            assert!(matches!(check_integrity(&wanted, found), Err(InstallFailure::IntegrityMismatch { .. })), "{found:?}");
        }
    }
}
