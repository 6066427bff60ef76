//! What sessions have in other rooms, which know nothing of them.

use crate::acp::BoxFuture;
use crate::fs::{Fence, Fs};
use crate::sessions::{BadRoot, Keeper, Root};

/// Keeps it.
pub(super) struct Keeping {
    pub(super) fs: Fs,
}

impl Keeper for Keeping {
    fn ended(&self, session_id: &str) {
        self.fs.leases().end_of(session_id);
    }

    fn copied(&self, from: &str, to: &str) {
        self.fs.copy_seen(from, to);
    }

    fn roots(&self, asked: Vec<String>) -> BoxFuture<Result<Vec<Root>, BadRoot>> {
        let fs = self.fs.clone();
        Box::pin(async move {
            let mut roots = Vec::with_capacity(asked.len());
            for path in asked {
                let fence = fs.fence(path.clone().into()).await;
                let Fence { path: named, real } = fence.map_err(|error| BadRoot { path, why: error.to_string() })?;
                let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned(); // a fence is UTF-8
                roots.push(Root { path: text(named), real: text(real) });
            }
            Ok(roots)
        })
    }
}
