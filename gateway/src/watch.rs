//! Notices when files change, however they are replaced.
//!
//! Folders are watched, not files: editors and `install` put a new file in the place of the old
//! one, and Kubernetes swaps a symbolic link (`..data`) that the path leads through. Whatever
//! happens in a folder is only a reason to look; a change is a file that is not the one it was.
//! What inotify(7) cannot see (network file systems, folders that come later) is found by a look
//! from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout, timeout_at};

/// Without news for so long, a change counts as finished.
const QUIET: Duration = Duration::from_millis(50);
/// After so long, the files are looked at even if the news does not end.
const NOISE_MAX: Duration = Duration::from_millis(500);
/// Between looks without news.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Symbolic links followed for one path, after path_resolution(7).
const LINKS_MAX: usize = 40;

/// Watches files by path.
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// By folder, the number inotify gave it.
    folders: BTreeMap<PathBuf, i32>,
}

/// What tells one content of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file, or it cannot be reached.
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl Watch {
    /// Watches nothing yet. Must be called within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that change their descriptor, \
                      which an `OwnedFd` never does"
        )]
        let inotify = AsyncFd::with_interest(inotify, Interest::READABLE)?;
        Ok(Self {
            inotify,
            files: BTreeMap::new(),
            folders: BTreeMap::new(),
        })
    }

    /// Watches these files and no others. A file that was watched before is compared with what
    /// it was then, so that no change is lost in between.
    pub(crate) fn set<'p>(&mut self, files: impl IntoIterator<Item = &'p Path>) {
        let known = std::mem::take(&mut self.files);
        for path in files {
            let stamp = known.get(path).copied();
            let stamp = stamp.unwrap_or_else(|| Stamp::of(path));
            self.files.insert(path.to_owned(), stamp);
        }
        self.watch_folders();
    }

    /// Completes when one of the files has changed, appeared or gone since the last time.
    pub(crate) async fn changed(&mut self) {
        while !self.look() {
            let news = timeout(LOOK_EVERY, drain(&self.inotify)).await;
            if news.is_ok() {
                let latest = Instant::now() + NOISE_MAX;
                let noise = async { while timeout(QUIET, drain(&self.inotify)).await.is_ok() {} };
                let _ = timeout_at(latest, noise).await;
            }
            // A link may lead elsewhere now.
            self.watch_folders();
        }
    }

    /// Whether something has changed since the last look.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, stamp) in &mut self.files {
            let now = Stamp::of(path);
            changed |= now != *stamp;
            *stamp = now;
        }
        changed
    }

    fn watch_folders(&mut self) {
        let mut wanted = BTreeSet::new();
        for path in self.files.keys() {
            folders_of(path, &mut wanted);
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut folders = BTreeMap::new();
        for folder in wanted {
            // A folder that cannot be watched is still looked at from time to time.
            if let Ok(number) = inotify::add_watch(&self.inotify, &folder, flags) {
                folders.insert(folder, number);
            }
        }
        let kept: BTreeSet<i32> = folders.values().copied().collect();
        for number in self
            .folders
            .values()
            .filter(|number| !kept.contains(number))
        {
            // Fails if the folder is gone, and its watch with it.
            let _ = inotify::remove_watch(&self.inotify, *number);
        }
        self.folders = folders;
    }
}

/// Completes when there was news, and it has been taken off the queue.
async fn drain(inotify: &AsyncFd<OwnedFd>) {
    let mut buffer = [0; 4096];
    // An error means that the queue is broken; the look from time to time remains.
    let read = inotify.async_io(Interest::READABLE, |queue| {
        Ok(rustix::io::read(queue, &mut buffer)?)
    });
    if read.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The folders in which a change may lead `path` elsewhere: those of every symbolic link on the
/// way, and that of the file itself.
fn folders_of(path: &Path, folders: &mut BTreeSet<PathBuf>) {
    let Ok(absolute) = std::path::absolute(path) else {
        return;
    };
    let mut reached = PathBuf::from("/");
    // Reversed, so that what a link adds goes on top.
    let mut ahead = parts(&absolute);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                folders.insert(reached.clone());
                if target.is_absolute() {
                    reached = PathBuf::from("/");
                }
                ahead.extend(parts(&target));
            }
            _ => {
                if ahead.is_empty() {
                    folders.insert(reached.clone());
                }
                reached = next;
            }
        }
    }
}

/// The names a path is made of, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut parts: Vec<OsString> = named.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// More than enough for any change to be seen by inotify, and less than `LOOK_EVERY`.
    const SOON: Duration = Duration::from_secs(4);

    fn folder() -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    /// Makes a change while it is waited for, so that it is inotify that tells of it.
    async fn sees(watch: &mut Watch, what: &str, change: impl FnOnce()) {
        let seen = timeout(SOON, watch.changed());
        // In this order: the files have been looked at when the change is made.
        let (seen, ()) = tokio::join!(seen, async { change() });
        seen.expect(what);
    }

    #[tokio::test]
    async fn every_way_to_replace_a_file_is_seen() {
        let (_folder, at) = folder();
        let file = at.join("gateway.toml");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new().unwrap();
        watch.set([file.as_path()]);
        assert!(!watch.look());

        type Change = fn(&Path);
        let table: [(&str, Change); 5] = [
            ("written in place", |at| {
                fs::write(at.join("gateway.toml"), "22").unwrap();
            }),
            ("renamed over", |at| {
                fs::write(at.join(".swap"), "33").unwrap();
                fs::rename(at.join(".swap"), at.join("gateway.toml")).unwrap();
            }),
            ("moved away and written anew", |at| {
                fs::rename(at.join("gateway.toml"), at.join("gateway.toml~")).unwrap();
                fs::write(at.join("gateway.toml"), "44").unwrap();
            }),
            ("deleted", |at| {
                fs::remove_file(at.join("gateway.toml")).unwrap();
            }),
            ("made again", |at| {
                fs::write(at.join("gateway.toml"), "5").unwrap();
            }),
        ];
        for (what, change) in table {
            sees(&mut watch, what, || change(&at)).await;
        }
    }

    #[tokio::test]
    async fn the_links_of_a_mounted_config_map_are_followed() {
        let (_folder, at) = folder();
        for version in ["..1", "..2", "..3"] {
            fs::create_dir(at.join(version)).unwrap();
            fs::write(at.join(version).join("gateway.toml"), version).unwrap();
        }
        symlink("..1", at.join("..data")).unwrap();
        symlink("..data/gateway.toml", at.join("gateway.toml")).unwrap();
        let mut watch = Watch::new().unwrap();
        let file = at.join("gateway.toml");
        watch.set([file.as_path()]);
        for version in ["..2", "..3"] {
            let swap = || {
                symlink(version, at.join("..data_tmp")).unwrap();
                fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
            };
            sees(&mut watch, version, swap).await;
        }
    }

    #[tokio::test]
    async fn a_change_between_two_sets_is_not_lost_and_others_do_not_count() {
        let (_folder, at) = folder();
        let (one, two) = (at.join("one"), at.join("two"));
        fs::write(&one, "1").unwrap();
        let mut watch = Watch::new().unwrap();
        watch.set([one.as_path()]);
        fs::write(&two, "other").unwrap();
        assert!(!watch.look(), "not one of the files");
        fs::write(&one, "22").unwrap();
        watch.set([one.as_path(), two.as_path()]);
        timeout(SOON, watch.changed()).await.expect("seen before");
        assert!(!watch.look());
    }

    #[test]
    fn the_folders_of_a_path_are_those_of_its_links_and_its_file() {
        let (_folder, at) = folder();
        fs::create_dir_all(at.join("real/deep")).unwrap();
        fs::write(at.join("real/deep/file"), "").unwrap();
        symlink("real", at.join("link")).unwrap();
        symlink(at.join("link/deep/../deep/file"), at.join("file")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        let of = |path: &str| {
            let mut folders = BTreeSet::new();
            folders_of(&at.join(path), &mut folders);
            let shown = |path: &PathBuf| path.strip_prefix(&at).map(Path::to_owned);
            folders.iter().filter_map(|path| shown(path).ok()).collect()
        };
        let table: [(&str, Vec<&str>); 4] = [
            ("real/deep/file", vec!["real/deep"]),
            ("file", vec!["", "real/deep"]),
            ("missing", vec![""]),
            ("loop", vec![""]),
        ];
        for (path, folders) in table {
            let expected: Vec<PathBuf> = folders.into_iter().map(PathBuf::from).collect();
            let found: Vec<PathBuf> = of(path);
            assert_eq!(found, expected, "{path}");
        }
    }
}
