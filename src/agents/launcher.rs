//! The launcher scripts that an installation writes.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::files;
use super::manifest::Manifest;
use super::resolve::SELF_VARIABLE;

/// The second line of each script that is ours.
const MARK: &str = "# Written by sandboxd; installing the agent again replaces it.";
const SCRIPT_MAX_BYTES: u64 = 64 * 1024;

/// True when the launcher was written here, not by a user.
pub(super) fn is_ours(path: &Path) -> bool {
    files::read_bounded(path, SCRIPT_MAX_BYTES).is_ok_and(|text| text.lines().nth(1) == Some(MARK))
}

/// The launcher of an agent that npm installed; `bin_dir` is its `node_modules/.bin`.
pub(super) fn for_npm(manifest: &Manifest, bin_dir: &Path, bin: &str, companions: bool) -> String {
    let mut script = format!("#!/bin/sh\n{MARK}\n");
    for (name, value) in &manifest.launch.env {
        // A user's own setting wins.
        let _ = writeln!(script, "[ -n \"${{{name}+set}}\" ] || export {name}={}", quote(value));
    }
    for (name, value) in &manifest.launch.env_if_root {
        let _ = writeln!(script, "[ -n \"${{{name}+set}}\" ] || [ \"$(id -u)\" != 0 ] || export {name}={}", quote(value));
    }
    if companions {
        let _ = writeln!(script, "export PATH={}:\"$PATH\"", quote(&bin_dir.display().to_string()));
    }
    let _ = write!(script, "exec {}", quote(&bin_dir.join(bin).display().to_string()));
    for arg in &manifest.launch.args {
        let _ = write!(script, " {}", quote(arg));
    }
    script.push_str(" \"$@\"\n");
    script
}

/// The launcher of an agent that is part of our own executable.
pub(super) fn for_builtin(self_exe: &Path, subcommand: &str) -> String {
    let exe = quote(&self_exe.display().to_string());
    format!("#!/bin/sh\n{MARK}\nself={exe}\nexec \"${{{SELF_VARIABLE}:-$self}}\" {} \"$@\"\n", quote(subcommand))
}

/// Writes a launcher, executable for all, in one step.
pub(super) fn write(path: &Path, script: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    files::write_atomically(path, script.as_bytes(), 0o755)
}

/// A word that a POSIX shell reads as exactly this text.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_script_sets_what_the_manifest_says_unless_it_is_set() {
        let text = "schema = 1\nid = 'x'\nname = 'X'\n[launch]\npath_names = ['x']\nargs = [\"it's\"]\n\
                    env = { A = 'b c' }\nenv_if_root = { R = '1' }";
        let manifest = Manifest::parse(text, "x").expect("valid");
        let expected = r#"[ -n "${A+set}" ] || export A='b c'
[ -n "${R+set}" ] || [ "$(id -u)" != 0 ] || export R='1'
export PATH='/d/.bin':"$PATH"
exec '/d/.bin/x' 'it'\''s' "$@"
"#;
        let script = for_npm(&manifest, Path::new("/d/.bin"), "x", true);
        assert_eq!(script, format!("#!/bin/sh\n{MARK}\n{expected}"));
    }

    #[test]
    fn ours_is_recognised() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("deep/mock-acp");
        write(&path, &for_builtin(Path::new("/x y/sandboxd"), "mock-agent-process")).expect("written");
        assert!(is_ours(&path) && files::is_executable(&path));
        std::fs::write(&path, "#!/bin/sh\nexec me\n").expect("written");
        assert!(!is_ours(&path));
    }
}
