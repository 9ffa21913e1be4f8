//! The tasks that check instances: they begin and end with the instances themselves. An instance
//! that stays, and is checked as before, goes on being checked by the same task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::{Target, outlier, watch};
use crate::config::ServiceConfig;
use crate::upstream::availability::Bar;
use crate::upstream::instance::Instance;
use crate::upstream::outlier::Outliers;
use crate::upstream::service::SharedService;

/// The checks of the generation in force.
#[derive(Default)]
pub(crate) struct Checks {
    instances: HashMap<(String, SocketAddr), Check>,
    outliers: HashMap<String, (Arc<Outliers>, Task)>,
}

struct Check {
    service: Arc<ServiceConfig>,
    instance: Arc<Instance>,
    task: Task,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checks {
    /// Checks the instances of these services, those that are to be checked, and no others any
    /// more. Runs on the current [`tokio::runtime::LocalRuntime`].
    pub(crate) fn follow(&mut self, services: &[Arc<SharedService>]) {
        let mut before = std::mem::take(self);
        for shared in services {
            self.outliers_of(shared, &mut before);
            for instance in &shared.instances {
                let availability = &instance.availability;
                // Nobody is left who would find it well again. Where the checks are only others,
                // it is for them to say so: a reload makes nobody healthy.
                if shared.config.health.is_none() {
                    availability.lift(Bar::Check, Instant::now());
                }
                if shared.config.outlier.is_none() {
                    availability.lift(Bar::Ejected, Instant::now());
                }
                self.instance(&shared.config, instance, &mut before);
            }
        }
    }

    fn outliers_of(&mut self, shared: &SharedService, before: &mut Self) {
        let Some(outliers) = &shared.faults.outliers else {
            return;
        };
        let name = shared.config.name.clone();
        let known = before.outliers.remove(&name);
        let known = known.filter(|(known, _)| Arc::ptr_eq(known, outliers));
        let running = known.unwrap_or_else(|| {
            let task = tokio::task::spawn_local(outlier::watch(Arc::clone(outliers)));
            (Arc::clone(outliers), Task(task))
        });
        self.outliers.insert(name, running);
    }

    fn instance(
        &mut self,
        service: &Arc<ServiceConfig>,
        instance: &Arc<Instance>,
        before: &mut Self,
    ) {
        let Some(check) = &service.health else {
            return;
        };
        let key = (service.name.clone(), instance.address);
        let same = |known: &Check| {
            Arc::ptr_eq(&known.instance, instance)
                && known.service.health.as_ref() == Some(check)
                && known.service.protocol == service.protocol
        };
        let task = match before.instances.remove(&key).filter(same) {
            Some(known) => known.task,
            None => Task(tokio::task::spawn_local(watch(Target::new(
                service,
                check,
                Arc::clone(instance),
            )))),
        };
        let running = Check {
            service: Arc::clone(service),
            instance: Arc::clone(instance),
            task,
        };
        self.instances.insert(key, running);
    }
}
