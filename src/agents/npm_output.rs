//! Reads what npm says: why it failed, and what may be shown of it.

use std::path::Path;

use super::error::InstallFailure;

/// Why npm failed, as its output tells.
pub(super) fn failure(step: &str, exit: &str, output: &str, packages: &str, dir: &Path) -> InstallFailure {
    let has = |words: &[&str]| words.iter().any(|word| output.contains(word));
    let path = || dir.to_owned();
    if has(&["ENOSPC", "EDQUOT"]) {
        InstallFailure::DiskFull { path: path() }
    } else if has(&["code EINTEGRITY"]) {
        InstallFailure::DownloadDamaged
    } else if has(&["code E404", "code ETARGET", "code ENOVERSIONS"]) {
        InstallFailure::NoSuchPackage { package: packages.to_owned() }
    } else if has(&["code E401", "code E403", "code ENEEDAUTH"]) {
        InstallFailure::RegistryRefused
    } else if has(&UNREACHABLE) {
        InstallFailure::RegistryUnreachable
    } else if has(&["code EACCES", "code EPERM", "code EROFS"]) {
        InstallFailure::Io { path: path(), cause: "npm may not write there, or to its cache".to_owned() }
    } else {
        InstallFailure::Failed { step: step.to_owned(), exit: exit.to_owned() }
    }
}

const UNREACHABLE: [&str; 12] = [
    "code ENOTFOUND",
    "code EAI_AGAIN",
    "code ECONNREFUSED",
    "code ECONNRESET",
    "code ETIMEDOUT",
    "code ENETUNREACH",
    "code EHOSTUNREACH",
    "code ERR_SOCKET_TIMEOUT",
    "code EIDLETIMEOUT",
    "code ENOTCACHED",
    "code FETCH_ERROR",
    "code SELF_SIGNED_CERT",
];

/// The text with `scheme://user:password@host` taken out of its URLs: they may hold credentials.
pub(super) fn without_hosts(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+').map_or(0, |last| last + 1);
        shown.push_str(&rest[..scheme]);
        shown.push('…');
        let after = &rest[at + 3..];
        let host_end =
            after.find(|c: char| c == '/' || c.is_whitespace() || matches!(c, '"' | '\'' | ')' | ',')).unwrap_or(after.len());
        rest = &after[host_end..];
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_their_credentials_are_not_shown() {
        let line = "npm http fetch GET 200 https://me:secret@registry.example/pi-acp 12ms (see http://x.example)";
        assert_eq!(without_hosts(line), "npm http fetch GET 200 …/pi-acp 12ms (see …)");
        assert_eq!(without_hosts("nothing: here"), "nothing: here");
    }

    #[test]
    fn failures_are_told_apart() {
        let say = |output: &str| failure("npm install", "exit code 1", output, "x@1", Path::new("/d")).to_string();
        assert!(say("npm error code ENOSPC").contains("disk is full"));
        assert!(say("npm error code E404\nnpm error 404 Not Found").contains("no x@1"));
        assert!(say("npm ERR! code ECONNREFUSED").contains("can't be reached"));
        assert!(say("npm error code EINTEGRITY").contains("checksum"));
        assert_eq!(say("npm error something"), "npm install ended with exit code 1");
    }
}
