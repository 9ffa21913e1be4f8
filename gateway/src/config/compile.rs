//! From the file as typed to the configuration as meant: every value checked, all problems
//! collected.

mod access_log;
mod action;
mod admin;
mod auth;
pub(crate) mod balance;
mod client_certificates;
mod discover;
mod headers;
mod health;
mod kept;
mod listener;
mod overload;
mod predicates;
mod reading;
mod resilience;
mod route;
mod service;
mod service_tls;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::route::Around;
use super::error::Problem;
use super::file::{File, Named, Placed, Source};
use super::fingerprint::Fingerprint;
use super::model::Config;
use super::sections::Sections;
use super::units::{Duration, Size};
use crate::filter::chain::FilterKind;
use crate::overload::Gates;

/// Letters of a name at most; names become metric labels and header fields.
const NAME_CHARS_MAX: usize = 64;

/// Bytes of a key set, or another file the configuration refers to, at most.
pub(super) const SOURCE_BYTES_MAX: u64 = 1 << 20;

/// Turns a file into a configuration, or says everything that is wrong with it, and which files
/// it refers to. What is as it was in `previous` is taken over from there, and the routes named in
/// `kept`, which are not in the file.
pub(super) fn compile(
    file: &File,
    base_dir: &Path,
    previous: Option<&Config>,
    kept: &[&str],
) -> Result<Config, (Vec<Problem>, Vec<PathBuf>)> {
    let mut compiler = Compiler {
        base_dir,
        previous,
        kept,
        made_from_files: BTreeSet::new(),
        sources_read: 0,
        zone: None,
        system_roots: None,
        problems: Vec::new(),
        fingerprint: Fingerprint::default(),
    };
    let mut config = compiler.config(file);
    if compiler.problems.is_empty() {
        config.fingerprint = compiler.fingerprint;
        config.made_from_files = compiler.made_from_files;
        Ok(config)
    } else {
        let sources = compiler.fingerprint.sources().map(Path::to_owned);
        Err((compiler.problems, sources.collect()))
    }
}

/// Collects problems on the way. Wrong values are replaced by harmless ones, so that the rest of
/// the file is still checked; with a problem noted, the result is never used.
struct Compiler<'a> {
    base_dir: &'a Path,
    previous: Option<&'a Config>,
    /// Routes that are taken over from there.
    kept: &'a [&'a str],
    /// The routes that hold what other files, or the environment, say.
    made_from_files: BTreeSet<Box<str>>,
    /// References to such that were followed so far.
    sources_read: usize,
    /// The zone the gateway runs in.
    zone: Option<Arc<str>>,
    /// The issuers the system trusts, once a service has asked for them.
    system_roots: Option<service_tls::Roots>,
    problems: Vec<Problem>,
    /// Files the configuration refers to, and what they hold.
    fingerprint: Fingerprint,
}

impl Compiler<'_> {
    fn config(&mut self, file: &File) -> Config {
        self.names(file);
        let mut filters = Filters::default();
        self.auth(&file.auth, &mut filters);
        self.limits(&file.limits, &mut filters);
        self.sender_limits(&file.concurrency, &mut filters);
        self.zone = self.own_zone(file.server.zone.as_ref());
        let mut gates = Gates::default();
        let services = self.services(&file.services, &mut gates);
        let limits = self.server_limits(&file.server, file.reading);
        let around = Around {
            file,
            filters: &filters.by_name,
            services: &services,
            body_rate: limits.body_rate,
        };
        let (routes, series) = self.routes(&around, &mut gates);
        let listeners = self.listeners(&file.listeners);
        let admin = self.admin(file.admin.as_ref(), &listeners);
        Config {
            workers: file
                .server
                .workers
                .as_ref()
                .map(|n| self.within(n, 1..=1024, "workers")),
            busy_poll: self.busy_poll(&file.server.busy_poll),
            watch: *file.server.watch,
            fingerprint: Fingerprint::default(),
            sections: Sections::default(),
            made_from_files: BTreeSet::new(),
            listeners,
            services,
            routes,
            series,
            admin,
            overload: self.overload(&file.overload),
            gates,
            limits,
            access_logs: self.access_logs(file),
            tracing: self.tracing(&file.tracing),
            drain: Self::drain(&file.drain),
            filters: filters.by_name,
            tokens: filters.tokens,
            in_flight_limits: filters.in_flight_limits,
            rate_limits: filters.rate_limits,
        }
    }

    fn refuse(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Names must be fit for labels and header fields; `auth`, `limits` and `concurrency` share
    /// the names that `use` refers to.
    fn names(&mut self, file: &File) {
        self.names_of("listener", &file.listeners);
        self.names_of("service", &file.services);
        self.names_of("authentication", &file.auth);
        self.names_of("limit", &file.limits);
        self.names_of("limit", &file.concurrency);
        self.names_of("route", &file.routes);
        for name in file.limits.keys().chain(file.concurrency.keys()) {
            if file.auth.contains_key(name) {
                self.ambiguous(name, "an authentication");
            }
        }
        for name in file.concurrency.keys() {
            if file.limits.contains_key(name) {
                self.ambiguous(name, "a rate limit");
            }
        }
    }

    fn ambiguous(&mut self, name: &Placed<String>, other: &str) {
        let message = format!("`{name}` is the name of {other} too");
        let hint = "`use` finds both by name: give one of them another";
        self.refuse(Problem::at(name.span(), message).hint(hint));
    }

    fn names_of<T>(&mut self, what: &str, things: &Named<T>) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        for name in things.keys() {
            if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
                self.refuse(
                    Problem::at(name.span(), format!("invalid {what} name `{}`", name))
                        .hint("use 1 to 64 letters, digits, `-` and `_`"),
                );
            }
        }
    }

    /// An address with port.
    fn address(&mut self, text: &Placed<String>) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.refuse(
                Problem::at(text.span(), format!("`{text}` is no address with port")).hint(
                    "write an IP address and a port, as in \"10.0.1.11:8080\" or \"[::1]:8080\"",
                ),
            );
            SocketAddr::from(([0, 0, 0, 0], 0))
        })
    }

    /// A duration that must not be zero.
    fn positive(&mut self, duration: &Placed<Duration>) -> std::time::Duration {
        if duration.0.is_zero() {
            self.refuse(
                Problem::at(duration.span(), "this must be longer than nothing")
                    .hint("to wait practically for ever, write for example \"24h\""),
            );
        }
        duration.0
    }

    /// A number between two others.
    fn within<N: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        number: &Placed<N>,
        range: RangeInclusive<N>,
        name: &str,
    ) -> N {
        if !range.contains(number) {
            let message = format!("`{name}` is {}, which is out of range", number);
            let hint = format!("choose a number from {} to {}", range.start(), range.end());
            self.refuse(Problem::at(number.span(), message).hint(hint));
        }
        **number
    }

    /// A number of bytes between two others, which must fit memory.
    fn bytes(&mut self, size: &Placed<Size>, range: RangeInclusive<u64>) -> usize {
        if !range.contains(&size.0) {
            let hint = format!(
                "choose a size from {} to {}",
                Size(*range.start()),
                Size(*range.end())
            );
            let message = format!("size {size} is out of range");
            self.refuse(Problem::at(size.span(), message).hint(hint));
        }
        usize::try_from(size.0).unwrap_or(usize::MAX)
    }

    /// A path, relative to the configuration's folder.
    fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// The content of a file named in the configuration.
    fn read(&mut self, path: &str, span: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let path = self.path(path);
        let read = || {
            let bytes = std::fs::metadata(&path)?.len();
            if bytes > SOURCE_BYTES_MAX {
                return Err(std::io::Error::other("it is larger than 1MiB"));
            }
            std::fs::read(&path)
        };
        let read = read().inspect_err(|error| {
            self.problems.push(
                Problem::at(span, format!("cannot read {}: {error}", path.display()))
                    .hint("paths are relative to the folder of the configuration"),
            );
        });
        let bytes = read.ok();
        self.fingerprint.note(path, bytes.as_deref());
        bytes
    }

    /// The text behind a reference. Never part of a problem.
    fn source(&mut self, source: &Placed<Source>) -> Option<String> {
        self.source_at(source, source.span())
    }

    /// The same for one that is part of a larger value, which stands at `span`.
    fn source_at(&mut self, source: &Source, span: std::ops::Range<usize>) -> Option<String> {
        self.sources_read += 1;
        let text = match source {
            Source::File(path) => String::from_utf8(self.read(path, span.clone())?)
                .map_err(|_| format!("{path} is no text")),
            Source::Env(name) => std::env::var(name).map_err(|error| match error {
                VarError::NotPresent => format!("the environment variable `{name}` is not set"),
                VarError::NotUnicode(_) => format!("the environment variable `{name}` is no text"),
            }),
        };
        text.map_err(|reason| self.refuse(Problem::at(span, reason)))
            .ok()
    }
}

/// What `use` may refer to, and the same again by kind.
#[derive(Default)]
struct Filters {
    by_name: BTreeMap<String, FilterKind>,
    tokens: Vec<Arc<crate::filter::jwt::Jwt>>,
    in_flight_limits: Vec<Arc<crate::filter::in_flight::InFlightLimit>>,
    rate_limits: Vec<Arc<crate::filter::rate_limit::RateLimit>>,
}
