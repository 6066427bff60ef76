//! `sandboxd credentials`: what agents will find. Nothing is whole without `--reveal`, except for `extract-env`, whose
//! output is for a shell.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, print, say};
use crate::agents::credentials::{Credentials, DiscoverOptions, discover};
use crate::config::{Bounds, Env};
use crate::rt::clock::now_ms;

#[derive(Debug, Subcommand)]
pub(super) enum CredentialsCommand {
    /// Shows the credentials that were found, or the one of an agent or provider.
    Extract {
        /// Only the one that this agent would use.
        #[arg(short, long, value_parser = ["claude", "codex", "opencode", "amp"])]
        agent: Option<String>,
        /// Only the one for this provider, such as anthropic or openai.
        #[arg(short, long)]
        provider: Option<String>,
        #[command(flatten)]
        place: Place,
        /// Prints whole secrets.
        #[arg(short, long)]
        reveal: bool,
    },
    /// Prints whole credentials as assignments for a shell to eval.
    ExtractEnv {
        /// Puts export before each.
        #[arg(short, long)]
        export: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The home directory to look in [default: $HOME].
    #[arg(short = 'd', long, value_name = "HOME")]
    home_dir: Option<PathBuf>,
    /// Only API keys.
    #[arg(long)]
    no_oauth: bool,
}

impl Place {
    fn discover(&self, env: &Env) -> Result<Credentials, Failure> {
        let bounds = Bounds::from_env(env)?;
        let home = self.home_dir.clone().or_else(|| env.path("HOME"));
        let home = home.ok_or_else(|| Failure::usage("no home directory: set HOME or give --home-dir HOME"))?;
        let home_is_chosen = self.home_dir.is_some();
        let options = DiscoverOptions { oauth: !self.no_oauth, home_is_chosen, ..DiscoverOptions::new(now_ms(), &bounds) };
        Ok(discover(env, &home, options))
    }
}

pub(super) fn run(command: &CredentialsCommand, env: &Env) -> Result<(), Failure> {
    match command {
        CredentialsCommand::Extract { agent: None, provider: None, place, reveal } => {
            let views = place.discover(env)?.views(*reveal);
            print(serde_json::to_string_pretty(&views).map_err(Failure::failed)?)
        }
        CredentialsCommand::Extract { agent, provider, place, reveal } => {
            let found = place.discover(env)?;
            let credential = found.pick(agent.as_deref(), provider.as_deref()).map_err(Failure::failed)?;
            print(credential.view(*reveal).api_key)?;
            if !reveal {
                say("only its beginning and end are shown: --reveal prints it whole");
            }
            Ok(())
        }
        CredentialsCommand::ExtractEnv { export, place } => {
            place.discover(env)?.extract_env(*export).into_iter().try_for_each(print)
        }
    }
}
