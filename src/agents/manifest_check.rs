//! What makes a manifest valid beyond its shape.
//!
//! Names and versions end up in paths and on npm's command line, so they are narrow: no path leaves its directory, and
//! no package comes from anywhere but the registry.

use super::manifest::{ConfigOption, LaunchSection, MOCK_SUBCOMMAND, Manifest, NpmPackage, SCHEMA_VERSION};

/// Checks what the TOML types leave open; the answer says what would be right.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.schema != SCHEMA_VERSION {
        return Err(format!("schema = {} is not understood: this server reads schema = {SCHEMA_VERSION}", manifest.schema));
    }
    if !is_id(&manifest.id) {
        return Err(format!("id {:?}: use up to 64 of a-z 0-9 . _ -, beginning with a letter or digit", manifest.id));
    }
    if manifest.name.trim().is_empty() {
        return Err("name is empty".to_owned());
    }
    check_launch(&manifest.launch)?;
    for name in &manifest.native.names {
        check_executable_name("native.names", name)?;
    }
    manifest.install.npm.as_ref().map_or(Ok(()), check_npm)?;
    if manifest.install.npm.is_none() && manifest.launch.path_names.is_empty() && manifest.launch.builtin.is_none() {
        return Err("nothing to start: give launch.path_names or [install.npm]".to_owned());
    }
    manifest.config_options.iter().try_for_each(check_option)
}

fn check_launch(launch: &LaunchSection) -> Result<(), String> {
    if let Some(launcher) = launch.launcher.as_ref().filter(|name| !is_file_name(name)) {
        return Err(format!("launch.launcher {launcher:?} is not a plain file name"));
    }
    for name in &launch.path_names {
        check_executable_name("launch.path_names", name)?;
    }
    if let Some(builtin) = launch.builtin.as_ref().filter(|name| *name != MOCK_SUBCOMMAND) {
        return Err(format!("launch.builtin {builtin:?} is not known: there is only {MOCK_SUBCOMMAND:?}"));
    }
    let mut names = launch.env.keys().chain(launch.env_if_root.keys());
    if let Some(name) = names.find(|name| !is_variable(name)) {
        return Err(format!("launch.env: {name:?} is not a variable's name"));
    }
    let mut values = launch.env.values().chain(launch.env_if_root.values()).chain(&launch.args);
    if values.any(|value| value.contains('\0')) {
        return Err("launch: a value holds a NUL character".to_owned());
    }
    Ok(())
}

fn check_npm(npm: &NpmPackage) -> Result<(), String> {
    let companions = || npm.companions.iter();
    let mut names = std::iter::once(&npm.package).chain(companions().map(|companion| &companion.package)).chain(&npm.run_scripts);
    if let Some(name) = names.find(|name| !is_package(name)) {
        return Err(format!("install.npm: {name:?} is not a package name"));
    }
    for version in npm.version.iter().chain(companions().map(|companion| &companion.version)) {
        check_version(version).map_err(|reason| format!("install.npm.version: {reason}"))?;
    }
    let mut bins = std::iter::once(&npm.bin).chain(companions().map(|companion| &companion.bin));
    if let Some(bin) = bins.find(|bin| !is_file_name(bin)) {
        return Err(format!("install.npm.bin {bin:?} is not a plain file name"));
    }
    if npm.integrity.is_some() && npm.version.is_none() {
        return Err("install.npm.integrity needs the version that it belongs to".to_owned());
    }
    let mut integrities = npm.integrity.iter().chain(companions().filter_map(|companion| companion.integrity.as_ref()));
    match integrities.find(|integrity| !is_sha512(integrity)) {
        Some(integrity) => Err(format!("install.npm.integrity {integrity:?} is not an SRI string of SHA-512")),
        None => Ok(()),
    }
}

fn check_option(option: &ConfigOption) -> Result<(), String> {
    if option.id.is_empty() || option.category.is_empty() {
        return Err("config_options: id and category can't be empty".to_owned());
    }
    if option.options.iter().any(|choice| choice.value == option.current_value) {
        return Ok(());
    }
    Err(format!("config_options {:?}: current_value {:?} is not one of its options", option.id, option.current_value))
}

fn check_executable_name(field: &str, name: &str) -> Result<(), String> {
    let absolute = name.starts_with('/') && !name.contains('\0');
    if absolute || is_file_name(name) {
        return Ok(());
    }
    Err(format!("{field}: {name:?} is neither a plain name nor an absolute path"))
}

/// Checks that `version` is a version or a tag: anything with `/` or `:` would make npm fetch from elsewhere, and a
/// leading `-` would be an option.
///
/// # Errors
/// A sentence saying so.
pub(super) fn check_version(version: &str) -> Result<(), String> {
    let plain = version.len() <= 128 && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'));
    if plain && version.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(format!("{version:?} is not a version such as 1.2.3 or a tag such as latest"))
}

fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    id.len() <= 64 && id.chars().all(allowed) && id.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn is_sha512(integrity: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    integrity.strip_prefix("sha512-").is_some_and(|digest| digest.len() == 88 && digest.chars().all(base64))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// npm package names: `name` or `@scope/name`, URL-safe, not beginning with `.`, `_` or `-`.
fn is_package(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
    };
    name.len() <= 214
        && match name.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
            None => part(name),
        }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Manifest, manifest_from_command};
    use super::super::registry::BUILT_IN;

    /// The schema users check their manifests with, and the code that reads them, must say the same.
    fn verdicts(text: &str) -> (Result<(), String>, Result<(), String>) {
        let schema = serde_json::from_str(include_str!("../../schemas/agent-manifest.schema.json")).expect("JSON");
        let validator = jsonschema::draft202012::new(&schema).expect("a schema");
        let value: toml::Table = toml::from_str(text).expect("TOML");
        let value = serde_json::to_value(value).expect("JSON");
        let by_schema = validator.validate(&value).map_err(|error| error.to_string());
        (by_schema, Manifest::parse(text, "test").map(drop).map_err(|error| error.to_string()))
    }

    #[test]
    fn every_built_in_manifest_is_valid() {
        for (id, text) in BUILT_IN {
            assert_eq!(verdicts(text), (Ok(()), Ok(())), "{id}");
            let manifest = Manifest::parse(text, id).expect("valid");
            assert_eq!(manifest.id, id);
            let npm = manifest.install.npm.iter();
            assert!(npm.clone().all(|npm| npm.integrity.is_some() == npm.version.is_some()), "{id}: a pin has an integrity");
            assert!(npm.flat_map(|npm| &npm.companions).all(|companion| companion.integrity.is_some()), "{id}");
        }
    }

    #[test]
    fn schema_and_code_refuse_the_same() {
        const HEAD: &str = "schema = 1\nid = 'x'\nname = 'X'\n";
        let sri = format!("sha512-{}==", "A".repeat(86));
        let option =
            "config_options = [{id='m',name='M',category='m',type='select',current_value='v',options=[{value='v',name='V'}]}]";
        for good in [
            format!("{HEAD}[launch]\npath_names = ['x-acp', '/opt/x']\nenv = {{ A_1 = 'b' }}"),
            format!("{HEAD}{option}\n[launch]\nbuiltin = 'mock-agent-process'"),
            format!("{HEAD}[launch]\n[install.npm]\npackage = '@a/b'\nversion = '1.0.0-rc.1'\nintegrity = '{sri}'\nbin = 'b'"),
        ] {
            assert_eq!(verdicts(&good), (Ok(()), Ok(())), "{good}");
        }
        let launch = "[launch]\npath_names = ['x']";
        for bad in [
            format!("schema = 2\nid = 'x'\nname = 'X'\n{launch}"),
            format!("schema = 1\nid = 'X y'\nname = 'X'\n{launch}"),
            format!("schema = 1\nid = '../x'\nname = 'X'\n{launch}"),
            format!("schema = 1\nid = 'x'\nname = ' '\n{launch}"),
            format!("schema = 1\nid = 'x'\n{launch}"),
            HEAD.to_owned(),
            format!("{HEAD}[launch]"),
            format!("{HEAD}[launch]\npath_names = []"),
            format!("{HEAD}surprise = 1\n{launch}"),
            format!("{HEAD}{launch}\nsurprise = 1"),
            format!("{HEAD}[launch]\npath_names = ['../x']"),
            format!("{HEAD}{launch}\nlauncher = 'a/b'"),
            format!("{HEAD}{launch}\nlauncher = '..'"),
            format!("{HEAD}{launch}\nbuiltin = 'server'"),
            format!("{HEAD}{launch}\nenv = {{ 'A=B' = 'c' }}"),
            format!("{HEAD}{launch}\nargs = [\"a\\u0000b\"]"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'git+ssh://x'\nbin = 'x'"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'x'\nversion = 'file:../y'\nbin = 'x'"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'x'\nversion = '--global'\nbin = 'x'"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'x'\nbin = '../x'"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'x'\nintegrity = '{sri}'\nbin = 'x'"),
            format!("{HEAD}{launch}\n[install.npm]\npackage = 'x'\nversion = '1'\nintegrity = 'sha1-abc'\nbin = 'x'"),
            format!("{HEAD}{launch}\n[capabilities]\nflying = true"),
            format!("{HEAD}{launch}\n[capabilities]\nimages = 'yes'"),
            format!("{HEAD}{launch}\n[credentials]\nany_of = ['google']"),
            format!("{HEAD}{}\n{launch}", option.replace("select", "slider")),
            format!("{HEAD}{}\n{launch}", option.replace("category='m'", "category=''")),
        ] {
            let (by_schema, by_code) = verdicts(&bad);
            assert!(by_schema.is_err() && by_code.is_err(), "{bad}\nschema: {by_schema:?}\ncode: {by_code:?}");
        }
    }

    #[test]
    fn the_current_value_must_be_an_option() {
        let text = "schema = 1\nid = 'x'\nname = 'X'\nlaunch = {path_names = ['x']}\n\
                    config_options = [{id='m',name='M',category='m',type='select',current_value='w',options=[]}]";
        let error = Manifest::parse(text, "x.toml").expect_err("refused").to_string();
        assert_eq!(error, "x.toml: config_options \"m\": current_value \"w\" is not one of its options");
    }

    #[test]
    fn a_manifest_is_made_from_a_command() {
        let text = manifest_from_command("mine", "Mine \"1\"", "/opt/my agent", &["--acp".to_owned()]).expect("valid");
        assert_eq!(verdicts(&text), (Ok(()), Ok(())));
        assert!(manifest_from_command("Mine", "Mine", "x", &[]).is_err());
        assert!(manifest_from_command("mine", "Mine", "./x", &[]).is_err());
    }
}
