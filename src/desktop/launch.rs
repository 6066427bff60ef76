//! Programs in the desktop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use x_desktop::WindowInfo;

use super::types::Launched;
use super::{Desktop, Error, needs};
use crate::processes::ProcessId;

/// How long the first window of a program is waited for.
const WINDOW_PATIENCE: Duration = Duration::from_secs(5);

impl Desktop {
    /// Starts a program; with `wait`, waits a while for its first window. Dropping the future leaves it running.
    ///
    /// # Errors
    /// [`Error::AppNotFound`]; it can't be started; there is no desktop.
    pub async fn launch(&self, app: &str, args: Vec<String>, wait: bool) -> Result<Launched, Error> {
        let session = self.session()?;
        let program = self.program(app).ok_or_else(|| Error::AppNotFound(app.to_owned()))?;
        let before =
            if wait { Some(session.link.call("the windows", Error::failed, |display| display.windows()).await?) } else { None };
        let mut launched = self.started(&program.to_string_lossy(), args, &session.env).await?;
        if let Some(before) = before {
            let (id, processes) = (launched.process_id, self.parts().processes.clone());
            let is_its = |window: &WindowInfo| {
                let is_new = before.windows.iter().all(|old| old.id != window.id);
                is_new && window.pid.is_none_or(|pid| processes.process_of(pid) == Some(id))
            };
            let ended = self.parts().processes.clone();
            let name = id.to_string();
            let window = tokio::select! {
                window = session.until_window(is_its, false, WINDOW_PATIENCE) => window?.flatten(),
                // A program that only hands over to another one, and goes: its window may come all the same.
                () = async { _ = ended.ended(&name).await; tokio::time::sleep(AFTER_END).await } => None,
            };
            launched.window_id = window.map(|window| window.id.to_string());
        }
        Ok(launched)
    }

    /// Opens a file or a URL with whatever is set for it (xdg-open).
    ///
    /// # Errors
    /// [`Error::Failed`]: there is no xdg-open, or it can't be started; there is no desktop.
    pub async fn open(&self, target: String) -> Result<Launched, Error> {
        let session = self.session()?;
        if needs::find(&self.parts().env, "xdg-open").is_none() {
            let why = format!("xdg-open is not installed: {}", needs::INSTALL_COMMAND);
            return Err(Error::failed(why));
        }
        self.started("xdg-open", vec![target], &session.env).await
    }

    async fn started(
        &self,
        program: &str,
        args: Vec<String>,
        env: &std::collections::BTreeMap<String, String>,
    ) -> Result<Launched, Error> {
        let id: ProcessId =
            self.parts().start(program, args, env, None).await.map_err(|error| Error::failed(error.to_string()))?;
        let pid = self.parts().processes.get(&id.to_string()).ok().and_then(|info| info.pid);
        Ok(Launched { process_id: id, pid, window_id: None })
    }

    fn program(&self, app: &str) -> Option<PathBuf> {
        if app.contains('/') {
            return Some(PathBuf::from(app)).filter(|path| Path::new(path).is_file());
        }
        self.parts().env.search_path().into_iter().map(|dir| dir.join(app)).find(|path| path.is_file())
    }
}

/// After the end of a program, for a window of one that it started.
const AFTER_END: Duration = Duration::from_secs(2);
