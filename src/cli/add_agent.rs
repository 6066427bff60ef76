//! `sandboxd add-agent`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::rooms::Rooms;
use super::{Failure, block_on, print, read_input, say};
use crate::agents::manifest_from_command;
use crate::config::Env;

#[derive(Debug, Args)]
#[command(
    override_usage = "sandboxd add-agent <ID> [--name <NAME>] -- <COMMAND> [ARG]...\n       sandboxd add-agent --file <FILE>"
)]
pub(super) struct AddArgs {
    /// The manifest to add; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "name", "command"])]
    file: Option<PathBuf>,
    /// The id that requests will use: lower-case letters, digits, '.', '_', '-'.
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The name for people [default: the id].
    #[arg(long)]
    name: Option<String>,
    /// The program, and its arguments. It must speak ACP on stdin and stdout.
    #[arg(last = true, required_unless_present = "file")]
    command: Vec<String>,
    /// Where agents are installed [default: $XDG_DATA_HOME/sandboxd].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(args: AddArgs, env: Env) -> Result<(), Failure> {
    let search_path = env.search_path();
    let manifest = match (&args.file, &args.id, args.command.split_first()) {
        (Some(file), ..) => String::from_utf8(read_input(file)?)
            .map_err(|_| Failure::failed(format_args!("{} is not UTF-8: a manifest is a TOML file", file.display())))?,
        (None, Some(id), Some((command, rest))) => {
            let command = find(command, &search_path)?;
            manifest_from_command(id, args.name.as_deref().unwrap_or(id), &command, rest)?
        }
        _ => return Err(Failure::usage("give an id and a command, or --file FILE")), // the parser has seen to it
    };
    let path = block_on(async {
        let rooms = Rooms::open(env, args.data_dir.as_deref()).await?;
        Ok(rooms.agents.add(&manifest)?)
    })?;
    let id = path.file_stem().unwrap_or_default().to_string_lossy();
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;
    print(format_args!(
        "{} was written: servers know the agent from now on. Try it:\n  sandboxd api acp post --server-id try-{id} --agent {id} --json '{hello}'",
        path.display()
    ))
}

/// The program as the manifest must name it: a bare name, or an absolute path, since nobody knows where servers will run.
fn find(command: &str, search_path: &[PathBuf]) -> Result<String, Failure> {
    if !command.contains('/') {
        if !search_path.iter().any(|dir| dir.join(command).is_file()) {
            say(format_args!("note: {command} is not on PATH yet; the agent counts as installed once it is"));
        }
        return Ok(command.to_owned());
    }
    let path = std::path::absolute(Path::new(command)).ok().filter(|path| path.is_file());
    let path = path.and_then(|path| path.into_os_string().into_string().ok());
    path.ok_or_else(|| Failure::failed(format_args!("there is no file {command}: give the program's path, or its name on PATH")))
}
