//! The budget: how many instructions each program may have, and execute for each kind of packet.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Figures;
use crate::workspace;

/// Where the budget is checked in.
const FILE: &str = "xtask/src/disasm/budget.toml";
/// What a new budget leaves above the figures found, in percent: room for another version of the
/// compiler, not for another step of work.
const ROOM_PERCENT: u64 = 5;
/// A budget this far above what is found, in percent, has lost its grip.
const SLACK_PERCENT: u64 = 15;
/// Below this distance, in instructions, that is only rounding.
const SLACK_MIN: u64 = 8;

const HEADER: &str = "\
# How many instructions the BPF programs may have, and execute for each kind of packet.
# `cargo xtask check` fails when one has more. `cargo xtask disasm --write-budget` writes this
# file anew, with a little room above what it finds: do that when a packet's work changed on
# purpose, and say in the commit what the instructions are for.
";

/// What is allowed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// Instructions of each program that carries traffic, with all it calls, by name.
    size: BTreeMap<String, u64>,
    /// By row.
    run: BTreeMap<String, Allowed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    instructions: u64,
    helper_calls: u64,
}

/// What comparing brought up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Each a sentence: what exceeds its budget, or has none.
    pub(super) complaints: Vec<String>,
    /// Names whose budget could be tightened.
    pub(super) slack: Vec<String>,
}

impl Budget {
    /// The checked-in budget.
    pub(super) fn load() -> Result<Self> {
        let path = path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{FILE}; `cargo xtask disasm --write-budget` makes it"))?;
        Self::parse(&text).with_context(|| FILE.to_owned())
    }

    /// A budget with a little room above `figures`. Helpers cost too much for any.
    pub(super) fn above(figures: &Figures) -> Self {
        let with_room =
            |instructions: u64| instructions + (instructions * ROOM_PERCENT).div_ceil(100);
        let sizes = figures.budgeted_sizes();
        let rows = figures.rows.iter();
        Self {
            size: sizes
                .map(|size| (size.program.clone(), with_room(size.total as u64)))
                .collect(),
            run: rows
                .map(|row| {
                    let allowed = Allowed {
                        instructions: with_room(row.instructions),
                        helper_calls: row.helper_calls(),
                    };
                    (row.name(), allowed)
                })
                .collect(),
        }
    }

    /// Replaces the checked-in budget.
    pub(super) fn save(&self) -> Result<()> {
        std::fs::write(path(), self.render()).context(FILE)
    }

    /// What in `figures` exceeds the budget, and what the budget allows for nothing.
    pub(super) fn compare(&self, figures: &Figures) -> Verdict {
        let mut verdict = Verdict::default();
        let mut known = Vec::new();
        for size in figures.budgeted_sizes() {
            let name = &size.program;
            let allowed = self.size.get(name).copied();
            verdict.judge(
                name,
                "instructions in the object",
                size.total as u64,
                allowed,
            );
            known.push(name.clone());
        }
        for row in &figures.rows {
            let name = row.name();
            let allowed = self.run.get(&name);
            let instructions = allowed.map(|allowed| allowed.instructions);
            let what = "executed instructions";
            verdict.judge(&name, what, row.instructions, instructions);
            if let Some(allowed) = allowed {
                let found = row.helper_calls();
                verdict.exceeds(&name, "helper calls", found, allowed.helper_calls);
            }
            known.push(name);
        }
        for name in self.size.keys().chain(self.run.keys()) {
            if !known.contains(name) {
                let complaint = format!("{name}: has a budget and is not measured");
                verdict.complaints.push(complaint);
            }
        }
        verdict
    }

    fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse()?;
        let section = |name: &str| {
            let section = table.get(name).and_then(Value::as_table);
            section.with_context(|| format!("no section [{name}]"))
        };
        let mut budget = Self::default();
        for (name, value) in section("size")? {
            budget.size.insert(name.clone(), number(name, Some(value))?);
        }
        for (name, value) in section("run")? {
            let allowed = Allowed {
                instructions: number(name, value.get("instructions"))?,
                helper_calls: number(name, value.get("helper_calls"))?,
            };
            budget.run.insert(name.clone(), allowed);
        }
        Ok(budget)
    }

    fn render(&self) -> String {
        let mut text = format!("{HEADER}\n[size]\n");
        for (name, instructions) in &self.size {
            let _infallible = writeln!(text, "{name} = {instructions}");
        }
        text.push_str("\n[run]\n");
        for (name, allowed) in &self.run {
            let Allowed {
                instructions,
                helper_calls,
            } = allowed;
            let _infallible = writeln!(
                text,
                "\"{name}\" = {{ instructions = {instructions}, helper_calls = {helper_calls} }}"
            );
        }
        text
    }
}

impl Verdict {
    fn judge(&mut self, name: &str, what: &str, found: u64, allowed: Option<u64>) {
        let Some(allowed) = allowed else {
            let complaint = format!("{name}: {found} {what}, and no budget");
            return self.complaints.push(complaint);
        };
        self.exceeds(name, what, found, allowed);
        let is_far = found * (100 + SLACK_PERCENT) < allowed * 100;
        if is_far && allowed >= found + SLACK_MIN {
            self.slack.push(name.to_owned());
        }
    }

    fn exceeds(&mut self, name: &str, what: &str, found: u64, allowed: u64) {
        if found > allowed {
            let complaint = format!("{name}: {found} {what}, {allowed} allowed");
            self.complaints.push(complaint);
        }
    }
}

fn number(name: &str, value: Option<&Value>) -> Result<u64> {
    let number = value.and_then(Value::as_integer);
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.with_context(|| format!("`{name}` needs whole numbers"))
}

fn path() -> PathBuf {
    workspace::root().join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disasm::Size;
    use crate::disasm::cases::Row;

    fn figures(size: usize, instructions: u64, helper_calls: u64) -> Figures {
        let helpers = BTreeMap::from([("map_lookup_elem".to_owned(), helper_calls)]);
        Figures {
            sizes: vec![Size {
                object: "balancer",
                program: "weir".to_owned(),
                total: size,
                bytes: size * 8,
                functions: BTreeMap::new(),
            }],
            rows: vec![Row {
                program: "weir",
                family: "v4",
                mode: "l2",
                packet: "udp",
                tracking: "settled",
                instructions,
                helpers,
                visits: Vec::new(),
            }],
        }
    }

    const TEXT: &str = "[size]\nweir = 210\n\n[run]\n\
        \"weir v4 l2 udp settled\" = { instructions = 105, helper_calls = 3 }\n";

    #[test]
    fn a_new_budget_is_five_percent_above_and_reads_back() {
        let budget = Budget::above(&figures(200, 100, 3));
        let text = budget.render();
        assert_eq!(text, format!("{HEADER}\n{TEXT}"));
        assert_eq!(Budget::parse(&text).unwrap(), budget);
        assert_eq!(
            Budget::above(&figures(1, 1, 0)).size["weir"],
            2,
            "rounded up"
        );
    }

    #[test]
    fn figures_at_the_limit_and_beyond() {
        let budget = Budget::parse(TEXT).unwrap();
        let cases: [(Figures, &[&str]); 4] = [
            (figures(210, 105, 3), &[]),
            (
                figures(211, 105, 3),
                &["weir: 211 instructions in the object, 210 allowed"],
            ),
            (
                figures(210, 106, 3),
                &["weir v4 l2 udp settled: 106 executed instructions, 105 allowed"],
            ),
            (
                figures(210, 105, 4),
                &["weir v4 l2 udp settled: 4 helper calls, 3 allowed"],
            ),
        ];
        for (figures, expected) in cases {
            assert_eq!(budget.compare(&figures).complaints, expected);
        }
    }

    #[test]
    fn a_budget_far_above_has_lost_its_grip() {
        let budget = Budget::parse(TEXT).unwrap();
        // 105 allowed is 14.1 % above 92, and 15.4 % above 91.
        assert_eq!(budget.compare(&figures(200, 92, 3)).slack, [""; 0]);
        assert_eq!(
            budget.compare(&figures(200, 91, 3)).slack,
            ["weir v4 l2 udp settled"]
        );
        for (size, expected) in [(202, 0), (12, 1)] {
            let found = budget.compare(&figures(size, 105, 3)).slack.len();
            assert_eq!(found, expected, "{size}");
        }
        let rounded = Budget::above(&figures(2, 2, 0));
        assert_eq!(rounded.compare(&figures(2, 2, 0)).slack, [""; 0]);
    }

    #[test]
    fn rows_and_budgets_belong_together() {
        let none = Budget::default().compare(&figures(200, 100, 3)).complaints;
        assert_eq!(
            none,
            [
                "weir: 200 instructions in the object, and no budget",
                "weir v4 l2 udp settled: 100 executed instructions, and no budget",
            ]
        );
        let mut harness = figures(200, 105, 3);
        harness.sizes[0].object = "harness";
        assert_eq!(Budget::above(&harness).size.len(), 0);
        let nothing = Figures {
            sizes: Vec::new(),
            rows: Vec::new(),
        };
        let stale = Budget::parse(TEXT).unwrap().compare(&nothing).complaints;
        assert_eq!(
            stale,
            [
                "weir: has a budget and is not measured",
                "weir v4 l2 udp settled: has a budget and is not measured",
            ]
        );
    }

    #[test]
    fn what_is_no_budget_is_refused() {
        let cases = [
            ("[run]\n", "no section [size]"),
            ("[size]\n", "no section [run]"),
            ("[size]\nweir = -1\n[run]\n", "`weir` needs whole numbers"),
            (
                "[size]\n[run]\nweir = { instructions = 1 }\n",
                "`weir` needs whole numbers",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Budget::parse(text).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }
}
