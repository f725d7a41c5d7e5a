//! The folder's key ids in order, kept from one list to the next for as long as the folder does not
//! change: a page of a list then costs what is on it, not what is in the folder.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use strongroom_protocol::KeyId;

use super::files;

/// What the folder had at the last look.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Option<Index>>);

#[derive(Debug)]
struct Index {
    /// When the folder was last changed before it was read.
    modified_ns: i128,
    sorted: Arc<[KeyId]>,
}

/// File times advance in ticks of some milliseconds, and a folder that was changed in the tick in which it was
/// read may change again without a newer time. What is kept is older than any tick.
const SETTLED_NS: i128 = 1_000_000_000;

impl Names {
    /// The ids of all keys in the folder, in order. Other files are none of ours.
    pub(super) fn of(&self, folder: &Path) -> io::Result<Arc<[KeyId]>> {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        let modified_ns = files::modified_ns(&std::fs::metadata(folder)?);
        // No lock while the folder is read: lists need not wait for one another.
        if let Some(index) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && index.modified_ns == modified_ns
        {
            return Ok(Arc::clone(&index.sorted));
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            names.extend(files::key_id(&entry?.file_name()));
        }
        names.sort_unstable();
        let sorted: Arc<[KeyId]> = names.into();
        let settled = i128::try_from(now_ns).is_ok_and(|now_ns| now_ns - modified_ns > SETTLED_NS);
        let index = settled.then(|| Index { modified_ns, sorted: Arc::clone(&sorted) });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = index;
        Ok(sorted)
    }
}
