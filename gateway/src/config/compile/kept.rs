//! Routes that are taken over from the configuration before, because nothing they were made from
//! has changed.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::error::Problem;
use super::super::file::File;
use super::super::model::{Config, ServiceConfig};
use super::Compiler;
use super::route::Around;
use crate::overload::Gates;
use crate::route::predicate::Rule;
use crate::route::{Route, Table};

/// Positions of series that nobody uses any more, beside as many as are used, at most.
const SERIES_UNUSED_MAX: usize = 1000;

/// What is taken over, and where series begin.
#[derive(Default)]
pub(super) struct TakenOver<'p> {
    /// The configuration it is from, if anything is.
    from: Option<&'p Config>,
    pub(super) rules: Vec<Rule>,
    /// Routes that were there, and are not taken over: where their series begin, and how many
    /// they are.
    free: HashMap<&'p str, (usize, usize)>,
    /// All series begin below.
    pub(super) series: usize,
}

impl<'a> Compiler<'a> {
    /// The routes that are kept. Refuses, for want of a better word, where they cannot be: then
    /// everything is compiled again.
    pub(super) fn taken_over(&mut self, around: &Around<'_>, gates: &mut Gates) -> TakenOver<'a> {
        let Around {
            file,
            filters,
            services,
            ..
        } = *around;
        let Some(previous) = self.previous.filter(|_| !self.kept.is_empty()) else {
            return TakenOver::default();
        };
        // All else that routes refer to stands in the same text as before.
        let names = |services: &[Arc<ServiceConfig>]| -> Vec<String> {
            services.iter().map(|one| one.name.clone()).collect()
        };
        let same = names(&previous.services) == names(services)
            && previous.filters.len() == filters.len()
            && filters.iter().all(|(name, filter)| {
                let before = previous.filters.get(name);
                before.is_some_and(|before| before.is(filter))
            });
        if !same {
            self.refuse(Problem::whole("what routes refer to has changed"));
            return TakenOver::default();
        }
        for name in self.kept {
            if let Some((name, gate)) = previous.gates.routes.get_key_value(*name) {
                gates.routes.insert(name.clone(), Arc::clone(gate));
            }
        }
        let mut taken_over = TakenOver {
            from: Some(previous),
            series: previous.series,
            ..TakenOver::default()
        };
        let rules = previous.routes.rules();
        if rules.len() > self.kept.len() || !file.routes.is_empty() {
            let used: usize = rules
                .iter()
                .map(|rule| rule.route.counted_by().count())
                .sum();
            if previous.series > 2 * used + SERIES_UNUSED_MAX {
                self.refuse(Problem::whole(
                    "the series of routes that are gone are too many",
                ));
            }
            // In order of name, as the sections are.
            let kept = |rule: &Rule| self.kept.binary_search(&&*rule.route.name).is_ok();
            for rule in rules {
                if kept(rule) {
                    taken_over.rules.push(rule.clone());
                } else {
                    let route = &rule.route;
                    let series = (route.series_at, route.counted_by().count());
                    taken_over.free.insert(&route.name, series);
                }
            }
        }
        taken_over
    }

    /// Whether there is a route of this name.
    pub(super) fn has_route(&self, file: &File, name: &str) -> bool {
        file.routes.contains_key(name) || self.kept.binary_search(&name).is_ok()
    }
}

impl TakenOver<'_> {
    /// The whole table as it was, with the number of series, if no route has changed.
    pub(super) fn all(&self, file: &File) -> Option<(Arc<Table>, usize)> {
        let same = file.routes.is_empty() && self.rules.is_empty() && self.free.is_empty();
        let from = self.from.filter(|_| same)?;
        Some((Arc::clone(&from.routes), from.series))
    }

    /// Where the series of a new route begin: where they began before if there is room, else
    /// behind all others.
    pub(super) fn series_of(&mut self, route: &Route) -> usize {
        let count = route.counted_by().count();
        match self.free.get(&*route.name) {
            Some((at, room)) if *room == count => *at,
            _ => {
                let at = self.series;
                self.series += count;
                at
            }
        }
    }
}
