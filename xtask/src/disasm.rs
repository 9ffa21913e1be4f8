//! `cargo xtask disasm`: what the BPF programs consist of, and how many instructions they execute
//! for each kind of packet.
//!
//! Nanoseconds differ between machines and runs, instructions do not: they can be held to a
//! budget, and `cargo xtask check` does. [`machine`] runs the objects without a kernel, [`cases`]
//! has the packets and what is in the maps.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use self::budget::Budget;
use self::cases::Row;
use self::instruction::SLOT_BYTES;
use self::object::{Function, Object};
use crate::{ebpf, output, workspace};

mod arithmetic;
#[cfg(test)]
mod assembled;
mod budget;
mod cases;
mod contents;
mod helper;
mod instruction;
mod listing;
mod machine;
mod maps;
mod memory;
mod object;
mod packet;
mod source;
mod table;

/// The objects that are looked at.
const OBJECTS: [&str; 3] = ["balancer", "decap", HARNESS];
/// The one for measuring: it carries no traffic, so its programs may have any size.
const HARNESS: &str = "harness";

/// Options of `cargo xtask disasm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    toolchain: ebpf::Toolchain,
    /// Write the rows to this file too, as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "listing")]
    json: Option<PathBuf>,
    /// Print a line for each row, with the helpers that are called
    #[arg(long, conflicts_with = "listing")]
    rows: bool,
    /// Print this program's instructions instead
    #[arg(long, value_name = "PROGRAM")]
    listing: Option<String>,
    /// Print which lines of the source this row of the table executes; with a listing, how often
    /// each instruction is executed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "rows", "write_budget"])]
    row: Option<String>,
    /// Make what is found, and a little more, the budget of `cargo xtask check`
    #[arg(long, conflicts_with = "listing")]
    write_budget: bool,
}

/// What was found.
#[derive(Debug)]
struct Figures {
    sizes: Vec<Size>,
    rows: Vec<Row>,
}

impl Figures {
    /// The programs that carry traffic.
    fn budgeted_sizes(&self) -> impl Iterator<Item = &Size> {
        self.sizes.iter().filter(|size| size.object != HARNESS)
    }
}

/// How large a program is.
#[derive(Debug)]
struct Size {
    object: &'static str,
    program: String,
    /// Instructions, those of the functions it can come to included.
    total: usize,
    /// Bytes of all that: a 64-bit constant takes two slots.
    bytes: usize,
    /// Instructions of these functions, by name.
    functions: BTreeMap<String, usize>,
}

/// The linked objects by name.
type Objects = BTreeMap<&'static str, Object>;

/// `cargo xtask disasm`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ebpf::build(&args.toolchain)?;
    let objects = open()?;
    if args.listing.is_some() || args.row.is_some() {
        let lines = look(&objects, args.listing.as_deref(), args.row.as_deref())?;
        lines.iter().for_each(|line| output::result(line));
        return Ok(ExitCode::SUCCESS);
    }
    let figures = figures(&objects)?;
    let lines = if args.rows {
        table::flat(&figures.rows)
    } else {
        table::lines(&figures)
    };
    lines.iter().for_each(|line| output::result(line));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows(&figures)).context("the rows as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if args.write_budget {
        Budget::above(&figures).save()?;
        output::say("the budget is written anew; see `git diff` for what changed");
    } else {
        let complaints = Budget::load()?.compare(&figures).complaints;
        for complaint in &complaints {
            output::say(&format!("over budget: {complaint}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A step of `cargo xtask check`.
pub(crate) fn check(toolchain: &ebpf::Toolchain) -> Result<()> {
    ebpf::build(toolchain)?;
    let verdict = Budget::load()?.compare(&figures(&open()?)?);
    for complaint in &verdict.complaints {
        output::say(complaint);
    }
    if !verdict.slack.is_empty() {
        let count = verdict.slack.len();
        output::say(&format!(
            "{count} budgets are far above what is found; `cargo xtask disasm --write-budget` \
             tightens them"
        ));
    }
    ensure!(
        verdict.complaints.is_empty(),
        "{} figures are over their budget; `cargo xtask disasm --row NAME` shows where \
         the instructions go, and if they are worth it, `--write-budget` allows them",
        verdict.complaints.len()
    );
    Ok(())
}

fn open() -> Result<Objects> {
    let open = |name| {
        let path = workspace::bpf_dir().join(format!("{name}.o"));
        Ok((name, Object::open(&path)?))
    };
    OBJECTS.into_iter().map(open).collect()
}

fn figures(objects: &Objects) -> Result<Figures> {
    let sizes = objects.iter().flat_map(|(name, object)| {
        let programs = object.programs();
        programs.map(|program| Size::of(name, object, program))
    });
    Ok(Figures {
        sizes: sizes.collect(),
        rows: cases::rows(objects)?,
    })
}

impl Size {
    fn of(object_name: &'static str, object: &Object, program: &Function) -> Self {
        let reachable = object.reachable(program);
        let count = |function: &Function| object.instructions(function).count();
        Self {
            object: object_name,
            program: program.name(),
            total: reachable.iter().map(|function| count(function)).sum(),
            bytes: reachable
                .iter()
                .map(|function| function.slots * SLOT_BYTES)
                .sum(),
            functions: reachable
                .iter()
                .map(|function| (function.name(), count(function)))
                .collect(),
        }
    }
}

/// A program or a row from near by.
fn look(objects: &Objects, program: Option<&str>, row: Option<&str>) -> Result<Vec<String>> {
    let row = match row {
        Some(name) => Some(row_called(objects, name)?),
        None => None,
    };
    let name = program.or(row.as_ref().map(|row| row.program));
    let mut programs = objects.values().flat_map(|object| {
        let programs = object.programs();
        programs.map(move |program| (object, program))
    });
    let found = programs.find(|(_, program)| Some(&program.symbol[..]) == name);
    let (object, found) = found.with_context(|| {
        let name = name.unwrap_or_default();
        format!("no program `{name}`; the table of `cargo xtask disasm` names them")
    })?;
    Ok(match row {
        None => listing::lines(object, found, None),
        Some(row) if program.is_none() => listing::by_source(object, &row.visits),
        Some(row) if row.program == found.symbol => {
            listing::lines(object, found, Some(&row.visits))
        }
        Some(row) => bail!(
            "`{}` is a row of {}, not {}",
            row.name(),
            row.program,
            found.symbol
        ),
    })
}

fn row_called(objects: &Objects, name: &str) -> Result<Row> {
    let mut rows = cases::rows(objects)?.into_iter();
    let found = rows.find(|row| row.name() == name);
    found.with_context(|| format!("no row `{name}`; `cargo xtask disasm --rows` lists them"))
}

fn rows(figures: &Figures) -> serde_json::Value {
    let row = |row: &Row| {
        json!({
            "program": row.program,
            "family": row.family,
            "mode": row.mode,
            "packet": row.packet,
            "tracking": row.tracking,
            "instructions": row.instructions,
            "helper_calls": row.helper_calls(),
            "helpers": row.helpers,
        })
    };
    figures.rows.iter().map(row).collect()
}
