//! The admin listener and the control socket.

use std::os::unix::ffi::OsStrExt as _;

use super::super::error::Problem;
use super::super::file::{Admin, Drain, Placed};
use super::super::model::{AdminConfig, DrainConfig, ListenerConfig, SocketConfig};
use super::Compiler;

/// Bytes of a socket's path at most: `sun_path` of unix(7) with the byte that ends it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What is added to the path while the socket is made, so that it never stands there half ready.
const SOCKET_SUFFIX_BYTES_MAX: usize = ".4194304".len();

impl Compiler<'_> {
    pub(super) fn admin(
        &mut self,
        typed: Option<&Admin>,
        listeners: &[ListenerConfig],
    ) -> Option<AdminConfig> {
        let typed = typed?;
        let bind = typed.bind.as_ref().map(|text| {
            let bind = self.address(text);
            let taken = listeners.iter().any(|listener| listener.bind == bind);
            if bind.port() != 0 && taken {
                let message = format!("`{bind}` is already bound by a listener");
                self.refuse(Problem::at(text.span(), message));
            }
            bind
        });
        let mode = self.mode(&typed.socket_mode);
        let socket = typed.socket.as_ref().map(|path| self.socket(path, mode));
        if bind.is_none() && socket.is_none() {
            let problem = Problem::whole("`[admin]` has neither `bind` nor `socket`");
            self.refuse(problem.hint("add one of them, or leave the section out"));
        }
        Some(AdminConfig { bind, socket })
    }

    fn socket(&mut self, text: &Placed<String>, mode: u32) -> SocketConfig {
        let path = self.path(text);
        let bytes = path.as_os_str().as_bytes().len();
        let max = SOCKET_PATH_BYTES_MAX - SOCKET_SUFFIX_BYTES_MAX;
        if text.is_empty() || bytes > max {
            let message = format!("a socket cannot have a path of {bytes} bytes");
            let hint = format!("choose a path of 1 to {max} bytes, its folder included");
            self.refuse(Problem::at(text.span(), message).hint(hint));
        }
        SocketConfig { path, mode }
    }

    /// Permissions in octal.
    fn mode(&mut self, text: &Placed<String>) -> u32 {
        let mode = u32::from_str_radix(text, 8).ok();
        mode.filter(|mode| *mode <= 0o777).unwrap_or_else(|| {
            let problem = Problem::at(text.span(), format!("`{text}` are no permissions"));
            self.refuse(problem.hint("write them in octal, from \"0000\" to \"0777\""));
            0o600
        })
    }

    pub(super) fn drain(typed: &Drain) -> DrainConfig {
        DrainConfig {
            delay: typed.delay.0,
            idle_grace: typed.idle_grace.0,
            deadline: typed.deadline.0,
        }
    }
}
