//! The sockets operators use: the admin listener and the control socket. As with listeners,
//! everything that can fail is in [`Sockets::prepare`], and [`Sockets::commit`] cannot.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::{Admin, accept_tcp, accept_unix};
use crate::config::{AdminConfig, SocketConfig};
use crate::listen::tcp;
use crate::upgrade::{Giving, Inherited, Kind};

/// Both sockets, each with the task that accepts on it.
pub(crate) struct Sockets {
    admin: Rc<Admin>,
    tcp: Option<Open<SocketAddr>>,
    control: Option<(Open<SocketConfig>, SocketFile)>,
}

/// A socket in use.
struct Open<C> {
    config: C,
    /// A second hold on the socket, for whoever takes it over.
    held: OwnedFd,
    task: AbortHandle,
}

impl<C> Drop for Open<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is about to come into force; within, no socket: the one in use stays.
pub(crate) struct Prepared {
    tcp: Option<(SocketAddr, Option<(TcpListener, OwnedFd)>)>,
    control: Option<(SocketConfig, Option<NewControl>)>,
}

struct NewControl {
    socket: UnixListener,
    held: OwnedFd,
    file: SocketFile,
}

impl Sockets {
    /// None yet; `admin` answers on those to come.
    pub(crate) fn new(admin: Rc<Admin>) -> Self {
        Self {
            admin,
            tcp: None,
            control: None,
        }
    }

    /// Binds what is not bound yet, or `inherited`. Changes nothing that is in use.
    pub(crate) fn prepare(
        &self,
        config: Option<&AdminConfig>,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Prepared> {
        let tcp = config.and_then(|config| config.bind);
        let tcp = tcp.map(|bind| {
            let kept = self.tcp.as_ref().is_some_and(|open| open.config == bind);
            let new = (!kept).then(|| bind_tcp(bind, inherited)).transpose();
            let new = new.with_context(|| format!("admin cannot bind {bind}"))?;
            anyhow::Ok((bind, new))
        });
        let control = config.and_then(|config| config.socket.clone());
        let control = control.map(|config| {
            let mut open = self.control.iter();
            let kept = open.any(|(open, _)| open.config.path == config.path);
            let new = (!kept).then(|| NewControl::bind(&config, inherited));
            let path = config.path.display();
            let new = new.transpose();
            let new = new.with_context(|| format!("no control socket at {path}"))?;
            anyhow::Ok((config, new))
        });
        Ok(Prepared {
            tcp: tcp.transpose()?,
            control: control.transpose()?,
        })
    }

    /// Puts in force what was prepared. Must be called on a `LocalRuntime`.
    pub(crate) fn commit(&mut self, prepared: Prepared) {
        match prepared.tcp {
            None => self.tcp = None,
            Some((_, None)) => {}
            Some((config, Some((socket, held)))) => {
                let address = socket.local_addr().unwrap_or(config);
                tracing::info!(listener = "admin", %address, tls = false, "listening");
                let accept = accept_tcp(socket, Rc::clone(&self.admin));
                let task = tokio::task::spawn_local(accept).abort_handle();
                self.tcp = Some(Open { config, held, task });
            }
        }
        match prepared.control {
            None => self.control = None,
            Some((config, None)) => {
                if let Err(error) = set_mode(&config.path, config.mode) {
                    tracing::warn!(%error, "cannot change the permissions of the control socket");
                }
            }
            Some((config, Some(NewControl { socket, held, file }))) => {
                tracing::info!(socket = %config.path.display(), "taking commands");
                let accept = accept_unix(socket, Rc::clone(&self.admin));
                let task = tokio::task::spawn_local(accept).abort_handle();
                self.control = Some((Open { config, held, task }, file));
            }
        }
    }

    /// Whether there is a control socket.
    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Every socket, to be handed over.
    pub(crate) fn give(&self, giving: &mut Giving) -> io::Result<()> {
        if let Some(open) = &self.tcp {
            let kind = Kind::Admin { bind: open.config };
            giving.push((kind, open.held.try_clone()?));
        }
        if let Some((open, _)) = &self.control {
            let path = open.config.path.clone();
            giving.push((Kind::Control { path }, open.held.try_clone()?));
        }
        Ok(())
    }

    /// Accepts no more: another process does. `control`: it has the control socket too.
    pub(crate) fn handed_over(&mut self, control: bool) {
        self.tcp = None;
        if let Some((_, file)) = &mut self.control
            && control
        {
            file.ours = false;
        }
        self.control = None;
        self.admin.retire();
    }
}

fn bind_tcp(bind: SocketAddr, inherited: &mut Inherited) -> io::Result<(TcpListener, OwnedFd)> {
    let socket = match inherited.admin(bind) {
        Some(socket) => socket,
        None => tcp::bind(bind, false, 1)?.remove(0),
    };
    let held = socket.try_clone()?.into();
    Ok((TcpListener::from_std(socket)?, held))
}

impl NewControl {
    fn bind(config: &SocketConfig, inherited: &mut Inherited) -> anyhow::Result<Self> {
        let path = &config.path;
        let (socket, file) = match inherited.control(path) {
            Some(socket) => {
                set_mode(path, config.mode)?;
                (socket, SocketFile::at(path)?)
            }
            None => make(path, config.mode)?,
        };
        socket.set_nonblocking(true)?;
        let held = socket.try_clone()?.into();
        let socket = UnixListener::from_std(socket)?;
        Ok(Self { socket, held, file })
    }
}

/// Makes the control socket in place of one that a dead process left. It is made beside its path
/// and moved there, so that nobody finds it half ready or with other permissions.
fn make(path: &Path, mode: u32) -> anyhow::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => bail!("there is something else"),
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!("another process answers there; to replace it, use `run --take-over`")
        }
        _ => {}
    }
    let mut beside = OsString::from(path);
    beside.push(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let socket = std::os::unix::net::UnixListener::bind(&beside)?;
    set_mode(Path::new(&beside), mode)?;
    fs::rename(&beside, path)?;
    Ok((socket, SocketFile::at(path)?))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The file of the control socket. It goes with the value, unless it is somebody else's by then.
struct SocketFile {
    path: PathBuf,
    inode: u64,
    ours: bool,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: fs::symlink_metadata(path)?.ino(),
            ours: true,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.path);
        if self.ours && file.is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_takes_the_place_of_a_dead_one_only() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("run/gateway.sock");
        let (first, file) = make(&path, 0o640).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let refused = make(&path, 0o600).err().unwrap().to_string();
        assert!(refused.contains("another process"), "{refused}");

        // As a process that was killed leaves it.
        drop(first);
        std::mem::forget(file);
        let (_second, file) = make(&path, 0o600).unwrap();
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing lies beside it");
        drop(file);
        assert!(!path.exists());

        fs::write(&path, "a file").unwrap();
        assert!(make(&path, 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }

    #[test]
    fn the_file_of_another_process_is_left_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("gateway.sock");
        let (first, file) = make(&path, 0o600).unwrap();
        drop(first);
        let (_second, mut other) = make(&path, 0o600).unwrap();
        drop(file);
        assert!(path.exists(), "it belongs to the second");
        other.ours = false;
        drop(other);
        assert!(path.exists(), "it was handed over");
    }
}
