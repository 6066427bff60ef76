//! What a language server is: one TOML file, the same for those that are known here and for those that users add.
//!
//! The shape is published as `schemas/language-server.schema.json`; a test holds the two together. [`Manifest::parse`] is the only way
//! in, so a manifest in memory is always a valid one.

use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The manifest format that is understood.
const SCHEMA_VERSION: u32 = 1;
const ID_MAX: usize = 64;

/// One language server, as its file describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1: the manifest format that is understood.
    pub schema: u32,
    /// The id that requests use: lower-case letters, digits, `.`, `_`, `-`; at most 64.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// Of several for a language, the first of each role that is installed is started by itself.
    #[serde(default)]
    pub role: Role,
    /// What it is for.
    pub languages: Vec<Language>,
    /// Files in a directory that make it the root of what the server looks at.
    #[serde(default)]
    pub root_markers: Vec<String>,
    /// Which of several such directories above a file.
    #[serde(default)]
    pub root: RootRule,
    /// How it is found and started.
    pub launch: LaunchSection,
    /// How it is installed; without it, users install it themselves.
    #[serde(default)]
    pub install: InstallSection,
    /// `initializationOptions`.
    #[serde(default)]
    pub initialization_options: Option<Value>,
    /// What `workspace/configuration` is answered from.
    #[serde(default)]
    pub settings: Option<Value>,
}

/// What of a language a server looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Types, definitions, completion.
    #[default]
    Types,
    /// Rules and style, beside it.
    Lint,
}

/// Which directory with a marker is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootRule {
    /// The nearest.
    #[default]
    Nearest,
    /// The one farthest up within the repository: a workspace of many packages.
    Farthest,
}

/// A language and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// LSP's `languageId`.
    pub id: String,
    /// Patterns of file names.
    pub globs: Vec<String>,
}

/// How a server is found and started.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSection {
    /// Executables looked up in its installation, in `<data>/bin` and on `PATH`; an absolute path is taken as it is.
    pub path_names: Vec<String>,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables set for it unless the server's environment has them.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How a server is installed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallSection {
    /// From the npm registry.
    pub npm: Option<Packages>,
    /// From the Python one.
    pub pip: Option<Packages>,
    /// Else: what a person does.
    pub hint: Option<String>,
}

/// Packages that are installed together.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// With their versions, as npm or pip write them.
    pub packages: Vec<String>,
    /// The executable among what they bring.
    pub bin: String,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The language of a file of this name, if it is one of its.
    pub fn language_of(&self, name: &str) -> Option<&str> {
        let is_of = |glob: &String| matcher(glob).is_ok_and(|matcher| matcher.is_match(name));
        self.languages.iter().find(|language| language.globs.iter().any(is_of)).map(|language| language.id.as_str())
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA_VERSION {
            return Err(format!("schema = {} is not understood: this server reads schema = {SCHEMA_VERSION}", self.schema));
        }
        if !is_id(&self.id) {
            return Err(format!("id {:?}: use up to {ID_MAX} of a-z 0-9 . _ -, beginning with a letter or digit", self.id));
        }
        if self.name.trim().is_empty() {
            return Err("name is empty".to_owned());
        }
        if self.languages.is_empty() || self.languages.iter().any(|language| language.id.is_empty() || language.globs.is_empty())
        {
            return Err("languages: give at least one, each with an id and globs".to_owned());
        }
        for glob in self.languages.iter().flat_map(|language| &language.globs) {
            matcher(glob).map_err(|error| format!("languages.globs: {error}"))?;
        }
        let mut names = self.launch.path_names.iter().chain(self.packages().map(|packages| &packages.bin));
        if let Some(name) = names.find(|name| !is_executable_name(name)) {
            return Err(format!("{name:?} is neither a plain name nor an absolute path"));
        }
        if self.launch.path_names.is_empty() {
            return Err("launch.path_names is empty: there is nothing to start".to_owned());
        }
        if let Some(marker) = self.root_markers.iter().find(|marker| !is_executable_name(marker) || marker.starts_with('/')) {
            return Err(format!("root_markers: {marker:?} is not a plain file name"));
        }
        let mut packages = self.packages().flat_map(|packages| &packages.packages);
        match packages
            .find(|package| package.is_empty() || package.starts_with('-') || package.contains([' ', '\0', '/', '\\', ':']))
        {
            Some(package) if !is_scoped(package) => Err(format!("install: {package:?} is not a package of the registry")),
            _ => Ok(()),
        }
    }

    fn packages(&self) -> impl Iterator<Item = &Packages> {
        self.install.npm.iter().chain(&self.install.pip)
    }
}

fn matcher(glob: &str) -> Result<GlobMatcher, globset::Error> {
    Glob::new(glob).map(|glob| glob.compile_matcher())
}

fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    id.len() <= ID_MAX && id.bytes().all(fits) && id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn is_executable_name(name: &str) -> bool {
    let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    is_plain || name.starts_with('/') && !name.contains('\0')
}

/// `@scope/name@version`.
fn is_scoped(package: &str) -> bool {
    let parts = package.strip_prefix('@').and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(scope, name)| !scope.is_empty() && !name.is_empty() && !name.contains(['/', ' ', '\0', '\\', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        "schema = 1\nid = 'x'\nname = 'X'\nlanguages = [{ id = 'y', globs = ['*.y'] }]\nlaunch = { path_names = ['x-ls'] }\n";

    #[test]
    fn files_belong_to_languages_by_their_names() {
        let text = LEAST.replace("['*.y']", "['*.y', 'Makefile', '*.tar.y']");
        let manifest = Manifest::parse(&text).expect("valid");
        assert_eq!(
            ["a.y", "Makefile", "b.tar.y", "a.Y", "makefile", "y"].map(|name| manifest.language_of(name).is_some()),
            [true, true, true, false, false, false]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (from, to, expected) in [
            ("schema = 1", "schema = 2", "reads schema = 1"),
            ("id = 'x'", "id = '../x'", "use up to 64"),
            ("name = 'X'", "name = ' '", "name is empty"),
            ("['*.y']", "[]", "at least one"),
            ("['*.y']", "['[']", "globs"),
            ("['x-ls']", "[]", "nothing to start"),
            ("['x-ls']", "['bin/x']", "neither a plain name"),
            ("schema = 1", "schema = 1\nroot_markers = ['a/b']", "not a plain file name"),
            ("schema = 1", "schema = 1\ncolour = 'red'", "unknown field"),
        ] {
            let error = Manifest::parse(&LEAST.replace(from, to)).expect_err(to);
            assert!(error.contains(expected), "{error}");
        }
        for package in ["--registry=x", "a b", "https://x", "../x", "git+ssh://x/y", "@a/b/c"] {
            let text = format!("{LEAST}install = {{ npm = {{ packages = ['{package}'], bin = 'x' }} }}");
            assert!(Manifest::parse(&text).expect_err(package).contains("not a package"), "{package}");
        }
        for package in ["a@1.2.3", "@scope/name@1.0.0", "ruff==0.1"] {
            let text = format!("{LEAST}install = {{ npm = {{ packages = ['{package}'], bin = 'x' }} }}");
            Manifest::parse(&text).expect(package);
        }
    }
}
