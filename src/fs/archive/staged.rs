//! All or nothing: what is unpacked takes its place in one step, when it is whole.

use std::ffi::OsString;

use rustix::fs::{Mode, RenameFlags, fchmod, mkdirat, openat, renameat, renameat_with};
use rustix::io::Errno;

use super::super::change::remove_tree;
use super::super::draft::{PREFIX, present};
use super::super::entry::Kind;
use super::super::reach::Place;
use super::super::{Error, Fs, Located, Reach};
use super::content::OPEN_DIRECTORY;
use super::extract::unpack;
use super::{Extracted, Extraction, Pieces};
use crate::config::Bounds;
use crate::rt::ids::new_id;

/// Unpacks beside the destination, which is then replaced in one step.
pub(super) fn beside(
    fs: &Fs,
    reach: &Reach,
    at: &Located,
    how: Extraction,
    bounds: Bounds,
    pieces: Pieces,
) -> Result<Extracted, Error> {
    let place = reach.place(at, true)?;
    let there = present(&place)?;
    if let Some(there) = &there {
        if there.kind != Kind::Directory {
            return Err(Error::NotADirectory(at.path().to_path_buf()));
        }
        if reach.needs(there) {
            return Err(Error::Invalid(format!("{} must stay: it holds everything else", at.path().display())));
        }
    }
    let failed = |errno| Error::of("unpack", at.path(), errno);
    let name = OsString::from(format!("{PREFIX}{}", new_id("x")));
    mkdirat(&place.directory, &name, Mode::from_bits_retain(0o777)).map_err(failed)?;
    let directory = place.directory.try_clone().map_err(|error| Error::io("unpack", at.path(), &error))?;
    let staged = Place { directory, path: place.path.with_file_name(&name), name };
    let root = openat(&staged.directory, &staged.name, OPEN_DIRECTORY, Mode::empty()).map_err(failed);
    let unpacked = root.map(|root| unpack(root, at.path(), how, bounds, pieces, None));
    let placed = match unpacked {
        Ok(extracted) if extracted.failed.is_none() => {
            if let (Some(there), Ok(root)) = (&there, openat(&staged.directory, &staged.name, OPEN_DIRECTORY, Mode::empty())) {
                let _ = fchmod(root, Mode::from_bits_retain(there.mode)); // as the one that it replaces
            }
            let may = there.as_ref().filter(|_| how.overwrite).map_or(Ok(()), |there| fs.may_lose(reach, &place, there));
            may.and_then(|()| put(&staged, &place, how.overwrite)).map(|()| extracted)
        }
        Ok(extracted) => Ok(Extracted { failed: extracted.failed, ..Extracted::default() }),
        Err(error) => Err(error),
    };
    if placed.as_ref().is_ok_and(|extracted| extracted.failed.is_none()) {
        fs.put_below(reach, &place);
    }
    let _ = remove_tree(&staged); // what was replaced, or what failed; gone when it took the place
    placed
}

fn put(staged: &Place, place: &Place, overwrite: bool) -> Result<(), Error> {
    // Over nothing, or over an empty directory (rename(2)).
    let renamed = renameat(&staged.directory, &staged.name, &place.directory, &place.name);
    let renamed = match renamed {
        Err(Errno::NOTEMPTY | Errno::EXIST) if overwrite => {
            renameat_with(&staged.directory, &staged.name, &place.directory, &place.name, RenameFlags::EXCHANGE)
        }
        renamed => renamed,
    };
    renamed.map_err(|errno| match errno {
        Errno::NOTEMPTY | Errno::EXIST => Error::DestinationExists(place.path.clone()),
        errno => Error::of("unpack", &place.path, errno),
    })
}
