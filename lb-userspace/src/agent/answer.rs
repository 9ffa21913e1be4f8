//! Answers to what clients ask for.

use std::sync::Arc;

use serde::Serialize;
use tracing::{info, warn};

use super::publish::{self, targets};
use super::{Agent, Desired};
use crate::api::server::{Call, Change, Reply};
use crate::api::types::{CONFIGURATION_REFUSED, Doctor, ExplainQuery, Problem, Reloaded};
use crate::config::{self, Config, EditError, diff};
use crate::control::runtime;
use crate::control::state;
use crate::metrics::{self, Scene};
use crate::{dataplane, doctor, explain};

impl Agent {
    /// Does what is asked for, but for `detach`, which ends the agent.
    pub(super) async fn answer(&mut self, call: Call) -> Reply {
        match call {
            Call::Status => body(&self.status(&self.totals()?, &self.links().await)),
            Call::Vips => body(&self.vips()),
            Call::Vip(name) => body(&self.vip(self.find_vip(&name)?)),
            Call::Change {
                vip,
                backend,
                change,
            } => self.change(&vip, &backend, &change),
            Call::Stats => body(&self.stats(&self.totals()?)),
            Call::Explain(query) => self.explain(&query),
            Call::Doctor => body(&self.examine().await),
            Call::Reload => body(&Reloaded {
                changes: self.reload()?,
            }),
            Call::Metrics => self.metrics().await,
            Call::Detach => Err(Problem::new(
                409,
                "busy",
                "The agent is not ready for this",
                "",
            )),
        }
    }

    /// Changes one backend: all the way to the data plane, or not at all.
    fn change(&mut self, vip: &str, backend: &str, change: &Change) -> Reply {
        let Desired {
            config, runtime, ..
        } = &*self.desired;
        let changed = runtime
            .with(config, vip, backend, change)
            .map_err(edit_problem)?;
        let next = self.desired.with(config.clone(), &changed, &self.published);
        self.save(&next)?;
        if let Err(error) = self.adopt_desired(next) {
            // The file must say what holds.
            if let Err(problem) = self.save(&self.desired) {
                warn!(
                    "the runtime changes on disk are ahead of what holds: {}",
                    problem.detail
                );
            }
            return Err(publish_problem(&error));
        }
        info!(vip, backend, ?change, "changed by the control API");
        let found = self.find_vip(vip)?;
        match found.backends.get(backend) {
            Some(backend) => {
                let owners = self.published.owners(&state::key(found));
                body(&self.backend(found, backend, &owners))
            }
            None => body(&self.vip(found)),
        }
    }

    /// Reads the configuration again: whole, or not at all. What only a start can change is reported
    /// and left alone.
    pub(super) fn reload(&mut self) -> Result<Vec<diff::Change>, Problem> {
        let result = self.try_reload();
        match &result {
            Ok(_) => self.meters.reloads.inc(),
            Err(_) => self.meters.reload_failures.inc(),
        };
        result
    }

    fn try_reload(&mut self) -> Result<Vec<diff::Change>, Problem> {
        let mut new = Config::load(&self.file).map_err(unreadable)?;
        if let Some(socket) = &self.socket {
            new.agent.socket.clone_from(socket);
        }
        let changes = diff::diff(&self.desired.config, &new);
        new.agent = self.desired.config.agent.clone();
        let next = self
            .desired
            .with(new, &self.desired.runtime, &self.published);
        self.adopt_desired(next)
            .map_err(|error| publish_problem(&error))?;
        for change in changes.iter().filter(|change| change.warning().is_some()) {
            warn!("{change}");
        }
        if let Err(problem) = self.save(&self.desired) {
            warn!(
                "cannot save which runtime changes are left: {}",
                problem.detail
            );
        }
        Ok(changes)
    }

    /// Makes `next` what is desired, if it can be published.
    fn adopt_desired(&mut self, next: Desired) -> Result<(), publish::Error> {
        self.try_publish(&next)?;
        self.net.follow(state::addresses(&next.effective));
        self.probes.set_targets(targets(&next.effective.config));
        self.desired = Arc::new(next);
        Ok(())
    }

    fn save(&self, desired: &Desired) -> Result<(), Problem> {
        let path = runtime::path(&desired.config.agent.socket);
        runtime::save(&path, &desired.runtime).map_err(|error| {
            let detail = format!("cannot write {}: {error}", path.display());
            Problem::new(
                500,
                "not-saved",
                "The change would not survive a restart",
                detail,
            )
        })
    }

    fn explain(&self, query: &ExplainQuery) -> Reply {
        if query.source.is_ipv4() != query.address.is_ipv4() {
            let detail = "source and destination are of different IP versions";
            return Err(Problem::new(
                400,
                "families-differ",
                "No such packet exists",
                detail,
            ));
        }
        let maps = self.dataplane.maps();
        let tables = maps.tables().map_err(|error| dataplane_problem(&error))?;
        let (mut explanation, owner) = explain::explain(query, &tables, self);
        let vip = explanation
            .vip
            .as_ref()
            .and_then(|name| self.find_vip(name).ok());
        if let (Some(vip), Some(owner)) = (vip, owner) {
            let owners = self.published.owners(&state::key(vip));
            let named = vip.backends.get(&owner);
            explanation.backend = named.map(|backend| self.backend(vip, backend, &owners));
        }
        body(&explanation)
    }

    async fn examine(&self) -> Doctor {
        let settings = &self.desired.config.agent;
        let mut findings = doctor::host(&settings.bpffs);
        let links = self.links().await;
        findings.extend(doctor::interfaces(settings, &links));
        let ways = self.net.ways.borrow().ways.clone();
        for vip in self.desired.effective.config.vips.values() {
            findings.extend(doctor::vip(
                vip,
                &ways,
                self.published.owners(&state::key(vip)).len(),
            ));
            if self.panics.contains(&vip.name) {
                findings.push(doctor::panic(vip));
            }
        }
        let totals = self.totals();
        findings.extend(totals.iter().flat_map(doctor::drops));
        findings.extend(totals.iter().flat_map(doctor::forgotten));
        Doctor { findings }
    }

    async fn metrics(&self) -> Reply {
        let totals = self.totals()?;
        let scene = Scene {
            meters: &self.meters,
            status: &self.status(&totals, &self.links().await),
            stats: &self.stats(&totals),
            panics: self.panics.iter().map(String::as_str).collect(),
            netlink_events: self.net.events(),
        };
        let failed = |_| Problem::new(500, "not-rendered", "The metrics could not be written", "");
        metrics::render(&scene).map_err(failed)
    }

    fn totals(&self) -> Result<dataplane::Totals, Problem> {
        self.dataplane
            .maps()
            .totals()
            .map_err(|error| dataplane_problem(&error))
    }

    async fn links(&self) -> std::collections::BTreeMap<u32, crate::net::Link> {
        let links = self.net.links().await;
        links.unwrap_or_else(|error| {
            warn!(%error, "cannot list interfaces");
            self.net.ways.borrow().snapshot.links.clone()
        })
    }

    fn find_vip(&self, name: &str) -> Result<&config::Vip, Problem> {
        let vip = self.desired.effective.config.vips.get(name);
        vip.ok_or_else(|| edit_problem(EditError::UnknownVip(name.to_owned())))
    }
}

/// A successful answer.
pub(super) fn body(answer: &impl Serialize) -> Reply {
    serde_json::to_vec(answer).map_err(|error| {
        Problem::new(
            500,
            "not-rendered",
            "The answer could not be written",
            error.to_string(),
        )
    })
}

/// A file that cannot be read again, or is refused: each of its problems brings a hint of its own.
fn unreadable(error: config::Error) -> Problem {
    match error {
        config::Error::Refused(error) => refused(422, format!("nothing has changed: {error}")),
        error => Problem::new(
            500,
            "configuration-unreadable",
            "Cannot read the file",
            error_chain(&error),
        ),
    }
}

/// A failure of the data plane.
pub(super) fn dataplane_problem(error: &dataplane::Error) -> Problem {
    Problem::new(
        500,
        "data-plane",
        "The data plane failed",
        error_chain(error),
    )
    .with_hint(error.hint())
}

fn publish_problem(error: &publish::Error) -> Problem {
    match error {
        publish::Error::Refused(error) => refused(422, error.to_string()).with_hint(Some(
            "raise agent.limits, which takes a restart, or ask for less",
        )),
        publish::Error::Dataplane(error) => dataplane_problem(error),
    }
}

fn edit_problem(error: EditError) -> Problem {
    let detail = error.to_string();
    let problem = match error {
        EditError::UnknownVip(_) => Problem::new(404, "unknown-vip", "No such VIP", detail),
        EditError::UnknownBackend { .. } => {
            Problem::new(404, "unknown-backend", "No such backend", detail)
        }
        EditError::BackendExists { .. } => Problem::new(
            409,
            "backend-exists",
            "The backend is there already",
            detail,
        ),
        EditError::Rule(_) => refused(422, detail),
    };
    problem.with_hint(error.hint())
}

fn refused(status: u16, detail: String) -> Problem {
    Problem::new(
        status,
        CONFIGURATION_REFUSED,
        "The configuration is refused",
        detail,
    )
}

/// An error and its causes on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_refused_file_says_that_nothing_has_changed_and_gives_one_hint() {
        let refused = Config::parse("agent = 1", Path::new("weir.toml")).unwrap_err();
        let problem = unreadable(config::Error::Refused(refused));
        assert_eq!((problem.status, problem.hint), (422, None));
        let begins = "nothing has changed: weir.toml:1:9: ";
        assert!(problem.detail.starts_with(begins), "{}", problem.detail);
        assert_eq!(problem.detail.matches("hint: ").count(), 1);
        let missing = Config::load(Path::new("/nowhere/weir.toml")).unwrap_err();
        assert_eq!(unreadable(missing).reason, "configuration-unreadable");
    }
}
