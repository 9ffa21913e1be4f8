//! The programs that serve as origins, each with a reference server behind it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::reference::{Reference, Report};
use crate::support::{eventually, skip};

/// Where Debian puts daemons, which are not in every user's path.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program that serves HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Nginx,
    Haproxy,
    Apache,
    Node,
    Python,
}

/// How a program understands a path, and says so.
enum View {
    /// As sent.
    Raw,
    /// With all escapes decoded.
    Decoded,
    /// It does not say.
    Untold,
}

impl Program {
    const ALL: [Self; 5] = [
        Self::Nginx,
        Self::Haproxy,
        Self::Apache,
        Self::Node,
        Self::Python,
    ];

    /// The name of the program and of the Debian package that brings it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => ("nginx", "nginx-light"),
            Self::Haproxy => ("haproxy", "haproxy"),
            Self::Apache => ("apache2", "apache2-bin"),
            Self::Node => ("node", "nodejs"),
            Self::Python => ("python3", "python3"),
        }
    }

    /// Those that are installed here. Says in one line which are not, or panics when all must be.
    pub(super) fn installed(suite: &str) -> Vec<Self> {
        let (here, missing): (Vec<Self>, Vec<Self>) =
            Self::ALL.into_iter().partition(|one| one.path().is_some());
        if !missing.is_empty() {
            let packages: Vec<&str> = missing.iter().map(|one| one.names().1).collect();
            let reason = format!(
                "not installed: `apt-get install {}` as root",
                packages.join(" ")
            );
            skip(&format!("some of {suite}"), &reason);
        }
        here
    }

    fn path(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
        let mut candidates = folders.map(|folder| folder.join(self.names().0));
        candidates.find(|candidate| candidate.is_file())
    }

    /// What is reported of a request behind this program, if it reads it as the reference does.
    pub(super) fn view(self, report: &Report) -> Report {
        let path = report.target.split('?').next().unwrap_or_default();
        let view = match self {
            Self::Nginx | Self::Apache => View::Decoded,
            Self::Haproxy => View::Raw,
            Self::Node | Self::Python => View::Untold,
        };
        let seen = match view {
            View::Raw => Some(path.to_owned()),
            View::Decoded => Some(decoded(path)),
            View::Untold => None,
        };
        Report {
            seen,
            ..report.clone()
        }
    }

    /// Starts it, with a reference server behind it.
    pub(super) async fn start(self) -> Origin {
        let reference = Reference::start().await;
        let folder = TempDir::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = self
            .command(folder.path(), address, reference.address())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let origin = Origin {
            address,
            reference,
            _child: child,
            folder,
        };
        eventually(&format!("{self:?} listens, {}", origin.log()), async || {
            TcpStream::connect(address).await.ok()
        })
        .await;
        origin
    }

    fn command(self, folder: &Path, address: SocketAddr, behind: SocketAddr) -> Command {
        let (file, text, arguments): (_, _, &[&str]) = match self {
            Self::Nginx => (
                "nginx.conf",
                nginx(folder, address, behind),
                &["-p", ".", "-c"],
            ),
            Self::Haproxy => ("haproxy.cfg", haproxy(address, behind), &["-db", "-f"]),
            Self::Apache => (
                "apache.conf",
                apache(folder, address, behind),
                &["-X", "-f"],
            ),
            Self::Node => ("origin.js", include_str!("origin.js").to_owned(), &[]),
            Self::Python => ("origin.py", include_str!("origin.py").to_owned(), &[]),
        };
        let path = folder.join(file);
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(self.path().expect("only installed programs are started"));
        command.current_dir(folder).args(arguments).arg(&path);
        if matches!(self, Self::Node | Self::Python) {
            command.args([address.port().to_string(), behind.port().to_string()]);
        }
        command
    }
}

/// A running program. Killed when dropped.
pub(super) struct Origin {
    address: SocketAddr,
    reference: Reference,
    _child: Child,
    folder: TempDir,
}

impl Origin {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the program has read since the last call.
    pub(super) fn reports(&self) -> Vec<Report> {
        assert!(
            self.reference.faults().is_empty(),
            "{:?}",
            self.reference.faults()
        );
        self.reference.take()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn nginx(folder: &Path, address: SocketAddr, behind: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
        .join("\n");
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}\nserver {{\nlisten {address};\nlocation / {{\n\
         proxy_pass http://{behind};\nproxy_http_version 1.1;\n\
         proxy_set_header Host $http_host;\nproxy_set_header X-Seen $uri;\n}}\n}}\n}}\n"
    )
}

fn haproxy(address: SocketAddr, behind: SocketAddr) -> String {
    format!(
        "global\nmaxconn 100\ndefaults\nmode http\ntimeout connect 5s\ntimeout client 10s\n\
         timeout server 10s\nfrontend in\nbind {address}\n\
         http-request set-header X-Seen %[path]\ndefault_backend out\n\
         backend out\nserver reference {behind}\n"
    )
}

fn apache(folder: &Path, address: SocketAddr, behind: SocketAddr) -> String {
    let folder = folder.display();
    let modules = ["mpm_event", "authz_core", "headers", "proxy", "proxy_http"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"))
        .join("\n");
    format!(
        "ServerRoot {folder}\nServerName test\nPidFile {folder}/pid\nMutex file:{folder}\n\
         Listen {address}\n{modules}\nErrorLog /dev/stderr\nUser nobody\nGroup nogroup\n\
         KeepAliveTimeout 60\nAllowEncodedSlashes NoDecode\nProxyPreserveHost On\n\
         RequestHeader set X-Seen \"expr=%{{REQUEST_URI}}\"\n\
         ProxyPass / http://{behind}/ nocanon\n"
    )
}

/// A path with its escapes decoded, as far as it is text.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
        } else {
            byte
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
