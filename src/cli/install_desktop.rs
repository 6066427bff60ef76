//! `sandboxd install desktop`: what an X session needs, by the system's package manager.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::Command;

use clap::{Args, Subcommand};

use super::{Failure, print, say};
use crate::config::Env;
use crate::desktop::PackageManager;

#[derive(Debug, Subcommand)]
pub(super) enum InstallCommand {
    /// Installs what the desktop needs: Xvfb, openbox and a font.
    Desktop(DesktopArgs),
}

#[derive(Debug, Args)]
pub(super) struct DesktopArgs {
    /// Doesn't ask.
    #[arg(short, long)]
    yes: bool,
    /// Prints the commands instead of running them.
    #[arg(long)]
    print_only: bool,
    /// `apt`, `dnf` or `apk` [default: the one that is there].
    #[arg(long, value_name = "NAME")]
    package_manager: Option<String>,
    /// Leaves the fonts out.
    #[arg(long)]
    no_fonts: bool,
}

pub(super) fn run(command: &InstallCommand, env: &Env) -> Result<(), Failure> {
    let InstallCommand::Desktop(args) = command;
    let manager = match &args.package_manager {
        Some(name) => PackageManager::named(name).ok_or_else(|| Failure::usage(format!("{name} is not one of apt, dnf, apk")))?,
        None => PackageManager::of_system(env).ok_or_else(|| {
            Failure::failed("neither apt-get, dnf nor apk is in the PATH: install Xvfb and openbox by other means")
        })?,
    };
    let commands: Vec<Vec<String>> = manager.commands(!args.no_fonts).into_iter().map(as_root).collect::<Result<_, _>>()?;
    let lines: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
    if args.print_only {
        return lines.iter().try_for_each(print);
    }
    if !args.yes {
        lines.iter().for_each(say);
        ask()?;
    }
    commands.iter().zip(&lines).try_for_each(|(words, line)| execute(words, line))
}

/// The same as root; by sudo for others.
fn as_root(words: Vec<String>) -> Result<Vec<String>, Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(words);
    }
    Ok(std::iter::once("sudo".to_owned()).chain(words).collect())
}

fn ask() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::failed("nobody to ask: run it with --yes"));
    }
    say("Run this? [y/N]");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was installed"))
}

/// With our terminal: a package manager talks to its user itself.
#[allow(clippy::disallowed_methods)] // a verb without a server: there is no room that could start it
fn execute(words: &[String], line: &str) -> Result<(), Failure> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    match Command::new(program).args(args).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(format!("{line}: {status}"))),
        Err(error) if program == "sudo" => {
            Err(Failure::failed(format!("{error}: installing needs root, and there is no sudo; run it as root")))
        }
        Err(error) => Err(Failure::failed(format!("{line}: {error}"))),
    }
}
