//! `sandboxd install-agent`.

use std::future::Future;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::api::InstallFlags;
use super::rooms::Rooms;
use super::{Failure, block_on, print, say};
use crate::agents::{Agents, InstallOptions, ListOptions};
use crate::config::Env;
use crate::processes::Children;

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// The agent's id.
    #[arg(required_unless_present = "all")]
    agent: Option<String>,
    /// Installs every agent that can be installed here.
    #[arg(long, conflicts_with = "agent")]
    all: bool,
    #[command(flatten)]
    what: InstallFlags,
    /// Where agents are installed [default: $XDG_DATA_HOME/sandboxd].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(args: &InstallArgs, env: Env) -> Result<(), Failure> {
    if args.all && args.what.name_a_version() {
        return Err(Failure::failed("a version belongs to one agent: install it alone, without --all"));
    }
    block_on(async {
        let rooms = Rooms::open(env, args.data_dir.as_deref()).await?;
        let options = args.what.options();
        match &args.agent {
            Some(agent) => unless_interrupted(&rooms.children, install_one(&rooms.agents, agent, options)).await,
            None => unless_interrupted(&rooms.children, install_all(&rooms.agents, options)).await,
        }
    })
}

/// Children lead their own process groups, so Ctrl-C reaches only us: we pass it on.
async fn unless_interrupted(children: &Children, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = signals else { return work.await };
    tokio::select! {
        result = work => return result,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    children.end_all().await;
    Err(Failure::failed("interrupted: what was there before is unchanged; run it again to install"))
}

async fn install_one(agents: &Agents, agent: &str, options: InstallOptions) -> Result<(), Failure> {
    let report = agents.install(agent, options).await?;
    print(format_args!("{:#}", report.to_cli_json()))
}

/// One after the other, going on after a failure: each agent's outcome is printed.
async fn install_all(agents: &Agents, options: InstallOptions) -> Result<(), Failure> {
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for agent in agents.list(ListOptions::default()).await {
        let mut outcome = match why_not(agents, &agent.id, agent.installed) {
            Some(why) => {
                say(format_args!("{} skipped: {why}", agent.id));
                json!({"skipped": why})
            }
            None => match agents.install(&agent.id, options.clone()).await {
                Ok(report) => report.to_cli_json(),
                Err(error) => {
                    failed.push(agent.id.clone());
                    json!({"error": error.to_string()})
                }
            },
        };
        outcome["agent"] = Value::String(agent.id);
        outcomes.push(outcome);
    }
    print(format_args!("{:#}", json!({"agents": outcomes})))?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format_args!("not installed: {}; run sandboxd install-agent for each to see why", failed.join(", "))))
}

/// Why `--all` leaves an agent out: nothing is pinned for it, so only its user can say what to install.
fn why_not(agents: &Agents, id: &str, installed: bool) -> Option<String> {
    let manifest = agents.manifest(id).ok().filter(|_| !installed)?; // one that is gone by now fails by itself
    match &manifest.install.npm {
        _ if manifest.launch.builtin.is_some() => None,
        Some(npm) if npm.version.is_some() => None,
        Some(_) => Some(format!("no version is pinned: sandboxd install-agent {id} --agent-process-version VERSION")),
        None => Some("there is no installer for it".to_owned()),
    }
}
