//! Where a sound server may be.

use std::fs;
use std::path::{Path, PathBuf};

/// Runtime directories of one home that are looked into.
const RUNTIMES_MAX: usize = 16;

/// A socket, and what proves that one may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Read at each connect; a server of the same user wants none.
    pub cookie: Option<PathBuf>,
}

/// Sockets that are there, the likeliest first: what the variables say, then where servers of this user, of a home and of the
/// system put theirs (pulse-client.conf(5), pulseaudio(1)). Blocks.
pub fn places(env: impl Fn(&str) -> Option<String>, user_id: u32, homes: &[&Path]) -> Vec<Place> {
    let cookie = env("PULSE_COOKIE").map(PathBuf::from).into_iter();
    let of_homes = homes.iter().flat_map(|home| [home.join(".config/pulse/cookie"), home.join(".pulse-cookie")]);
    let cookie = cookie.chain(of_homes).find(|path| path.is_file());
    let mut sockets: Vec<PathBuf> = env("PULSE_SERVER").as_deref().map(named).unwrap_or_default();
    sockets.extend(env("PULSE_RUNTIME_PATH").map(|dir| Path::new(&dir).join("native")));
    sockets.extend(env("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("pulse/native")));
    sockets.push(format!("/run/user/{user_id}/pulse/native").into());
    sockets.extend(homes.iter().flat_map(|home| runtimes(home)));
    sockets.push("/run/pulse/native".into());
    sockets.retain(|socket| socket.exists());
    sockets.into_iter().map(|socket| Place { socket, cookie: cookie.clone() }).collect()
}

/// Servers that a variable names, as PulseAudio writes them: `{machine}unix:/path /other`. Those of a network aren't of this sandbox.
fn named(list: &str) -> Vec<PathBuf> {
    let path = |server: &str| {
        let server = server.rsplit_once('}').map_or(server, |(_, server)| server);
        Some(server.strip_prefix("unix:").unwrap_or(server)).filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    list.split_whitespace().filter_map(path).collect()
}

/// Without a runtime directory, a server makes `<machine>-runtime` in its home.
fn runtimes(home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(home.join(".config/pulse")) else { return Vec::new() };
    let is_runtime = |path: &PathBuf| path.to_string_lossy().ends_with("-runtime");
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_runtime);
    paths.take(RUNTIMES_MAX).map(|path| path.join("native")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_many_ways() {
        let path = |path: &str| PathBuf::from(path);
        assert_eq!(named("unix:/a/native"), [path("/a/native")]);
        assert_eq!(named("{0123abc}unix:/a /b tcp:host:4713 host"), [path("/a"), path("/b")]);
    }

    #[test]
    fn only_what_is_there_is_a_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path();
        let runtime = home.join(".config/pulse/abc-runtime");
        fs::create_dir_all(&runtime).expect("made");
        let none = places(|_| None, 0, &[home]);
        assert!(none.iter().all(|place| !place.socket.starts_with(home)), "{none:?}");
        fs::write(runtime.join("native"), "").expect("written");
        fs::write(home.join(".config/pulse/cookie"), "c").expect("written");
        fs::write(home.join("other"), "").expect("written");
        let env = |name: &str| (name == "PULSE_SERVER").then(|| format!("unix:{}", home.join("other").display()));
        let found = places(env, 0, &[home]);
        assert_eq!(found[0].socket, home.join("other"));
        assert!(found.iter().any(|place| place.socket == runtime.join("native")));
        assert_eq!(found[0].cookie, Some(home.join(".config/pulse/cookie")));
    }
}
