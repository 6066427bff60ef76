//! `sandboxd state`: the database of this machine's servers, copied, put back and checked. Works on files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, print, say};
use crate::config::{Bounds, Dirs, Env};
use crate::rt::clock::now_ms;
use crate::store::{Examined, back_up, examine, restore, time_in_names};

/// What lies beside the database.
const NOT_IN_IT: &str =
    "not in it: logs of processes (spool/), attachments/, uploads/, installed agents (bin/), and agents' own files";

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Copies the database to a file, also while a server runs: whole and checked, or not at all.
    Backup {
        #[command(flatten)]
        place: Place,
        /// Where to [default: sandboxd-TIME.db in the current directory].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replaces FILE when it exists.
        #[arg(short, long)]
        force: bool,
    },
    /// Puts such a copy back; what is there now is set aside. No server may run on it.
    Restore {
        /// The copy.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
        /// Puts it back even if it is damaged: the next start keeps what can be read.
        #[arg(short, long)]
        force: bool,
    },
    /// Looks for damage, also while a server runs. Exit code 1 when there is some.
    Check {
        /// Another file, such as a backup.
        #[arg(conflicts_with_all = ["data_dir", "database"])]
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The data directory [default: $XDG_DATA_HOME/sandboxd].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The database, when it isn't sandboxd.db: sandboxd-PORT.db for a further server.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Place {
    fn database(&self, env: &Env) -> Result<PathBuf, Failure> {
        match &self.database {
            Some(file) => std::path::absolute(file).map_err(Failure::failed),
            None => Ok(Dirs::resolve(env, self.data_dir.as_deref())?.database()),
        }
    }
}

pub(super) fn run(command: &StateCommand, env: &Env) -> Result<(), Failure> {
    match command {
        StateCommand::Backup { place, output, force } => {
            let database = place.database(env)?;
            let output = output.clone().unwrap_or_else(|| format!("sandboxd-{}.db", time_in_names(now_ms())).into());
            let copied = back_up(&database, &output, *force).map_err(Failure::failed)?;
            say(NOT_IN_IT);
            if place.json {
                return print(
                    json!({"file": output, "database": database, "sizeBytes": copied.size_bytes, "schema": copied.schema, "rows": copied.rows}),
                );
            }
            print(format_args!("{} was copied to {}: {}", database.display(), output.display(), told(&copied)))
        }
        StateCommand::Restore { file, place, force } => {
            let database = place.database(env)?;
            let restored = restore(file, &database, &Bounds::from_env(env)?, *force).map_err(Failure::failed)?;
            say("note: the next start removes logs of processes (spool/) that the copy doesn't know");
            let examined = &restored.examined;
            if place.json {
                return print(
                    json!({"database": database, "setAside": restored.before, "sizeBytes": examined.size_bytes, "schema": examined.schema, "rows": examined.rows, "findings": examined.findings}),
                );
            }
            if let Some(before) = &restored.before {
                print(format_args!("what was there lies at {}", before.display()))?;
            }
            print(format_args!("{} is in the place of {}: {}", file.display(), database.display(), told(examined)))
        }
        StateCommand::Check { file, place } => {
            let path = file.clone().map_or_else(|| place.database(env), Ok)?;
            let examined = examine(&path).map_err(Failure::failed)?;
            let is_sound = examined.findings.is_empty();
            if place.json {
                print(
                    json!({"database": path, "sound": is_sound, "findings": examined.findings, "sizeBytes": examined.size_bytes, "schema": examined.schema, "rows": examined.rows}),
                )?;
            } else if is_sound {
                print(format_args!("{} is sound: {}", path.display(), told(&examined)))?;
            } else {
                examined.findings.iter().try_for_each(print)?;
            }
            if is_sound {
                Ok(())
            } else {
                Err(Failure::failed(format_args!(
                    "{} is damaged: a server that starts on it sets it aside and keeps what can be read; or put a backup back (sandboxd state restore FILE)",
                    path.display()
                )))
            }
        }
    }
}

/// Size and what is in it, as far as there is any.
fn told(examined: &Examined) -> String {
    let names = BTreeMap::from([
        ("acp_servers", "ACP servers"),
        ("events", "events"),
        ("fs_edits", "edits of files"),
        ("processes", "processes"),
        ("sessions", "sessions"),
        ("spans", "spans"),
        ("streams", "streams"),
        ("turns", "turns"),
    ]);
    let rows = names.iter().map(|(table, name)| format!("{} {name}", examined.rows.get(*table).unwrap_or(&0)));
    format!("{} bytes, {}", examined.size_bytes, rows.collect::<Vec<_>>().join(", "))
}
