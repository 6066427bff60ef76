//! A client's directories as the git room takes them: held, and with a way to ask for others.

use std::path::Path;
use std::sync::Arc;

use crate::fs::{Error, Located, Reach};
use crate::git::{Place, Spot};

/// A directory, and what else whoever named it may use.
pub(crate) async fn place(reach: &Reach, at: Located) -> Result<Place, Error> {
    let directory = Arc::new(reach.hold(at.clone()).await?);
    let reach = reach.clone();
    Ok(Place { path: at.path().to_path_buf(), directory, allows: Arc::new(move |path: &Path| reach.hold_real(path)) })
}

/// Where a worktree is or will be.
pub(crate) async fn spot(reach: &Reach, at: &Located) -> Result<Spot, Error> {
    let (parent, name) = at.split().ok_or_else(|| Error::Invalid(format!("{} has no name", at.path().display())))?;
    Ok(Spot { parent: place(reach, parent.to_path_buf().into()).await?, name: name.to_owned() })
}
