//! Two workers beside one.
//!
//! A machine of two CPUs has none left for generator and origin, so requests per second cannot
//! double. What can be seen is whether a request becomes dearer when two workers run at once, for
//! all that they share: the figure of two workers, times two, over that of one.

use anyhow::Result;

use super::case::turns;
use super::load::Load;
use super::proxy::{Program, Running};
use super::row::Row;
use super::{Ground, LOAD_CPU, PROXY_CPU};

pub(super) const CASE_TWO: &str = "h1 95B two workers";
pub(super) const CASE_ONE: &str = "h1 95B one worker, beside two";
const BODY: usize = 95;
const CONNECTIONS: usize = 128;

pub(super) fn run(ground: &mut Ground, programs: &[Program]) -> Result<Vec<Row>> {
    if !ground.wants(CASE_TWO) && !ground.wants(CASE_ONE) {
        return Ok(Vec::new());
    }
    let mut proxies = Vec::new();
    for program in programs {
        for cpus in [&[PROXY_CPU, LOAD_CPU][..], &[PROXY_CPU][..]] {
            let mut setup = ground.setup(&format!("{}-{}", program.name, cpus.len()))?;
            setup.cpus = cpus;
            proxies.push(program.start(&setup)?);
        }
    }
    let loads: Vec<Load> = proxies
        .iter()
        .map(|proxy| Load::new(proxy.setup.plain, BODY, CONNECTIONS))
        .collect();
    let references: Vec<&Running> = proxies.iter().collect();
    let mut rows = turns(ground, &references, &loads, CASE_TWO);
    for (proxy, row) in proxies.iter().zip(&mut rows) {
        if proxy.setup.cpus.len() == 1 {
            row.case = CASE_ONE.to_owned();
        }
    }
    Row::table(&rows);
    Ok(rows)
}
