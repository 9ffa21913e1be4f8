//! A program as text: functions, lines of the source, labels, names of helpers, maps and variables.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::helper;
use super::instruction::{Arithmetic, Callee, Constant, Instruction, Width};
use super::object::{Function, Object};

/// Lines of a file that a summary names.
const LINES_SHOWN: usize = 8;

/// The lines of `program` and all functions that it can come to. With `visits` (by slot of the
/// object), each instruction says how often it was executed, if it was.
pub(super) fn lines(object: &Object, program: &Function, visits: Option<&[u64]>) -> Vec<String> {
    let mut lines = Vec::new();
    for function in object.reachable(program) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let count = object.instructions(function).count();
        lines.push(format!("{}:  ; {count} instructions", function.name()));
        let targets = targets(object, function);
        let mut line = None;
        for (slot, instruction) in object.instructions(function) {
            let at = slot - function.start;
            if targets.contains(&slot) {
                lines.push(format!("  L{at}:"));
            }
            if let Some(new) = object.line(slot).filter(|new| line != Some(*new)) {
                lines.push(format!("        ; {new}"));
                line = Some(new);
            }
            let text = text(object, function, instruction);
            let visited = match visits.map(|visits| visits[slot]) {
                None => String::new(),
                Some(0) => "       ".to_owned(),
                Some(count) => format!("{count:>5}× "),
            };
            lines.push(format!("{visited}{at:>6}  {text}"));
        }
    }
    lines
}

/// How many of the executed instructions each file and line of the source accounts for, the most
/// expensive first. Of inlined code, that is where it was written.
pub(super) fn by_source(object: &Object, visits: &[u64]) -> Vec<String> {
    let mut files: BTreeMap<&str, (u64, BTreeMap<u32, u64>)> = BTreeMap::new();
    for (slot, count) in visits.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (file, number) = object
            .line(slot)
            .map_or(("(unknown)", 0), |line| (&line.file, line.number));
        let (total, lines) = files.entry(file).or_default();
        *total += count;
        *lines.entry(number).or_default() += count;
    }
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by_key(|(_, (total, _))| Reverse(*total));
    let text = |(file, (total, lines)): (&str, (u64, BTreeMap<u32, u64>))| {
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_by_key(|(_, count)| Reverse(*count));
        let shown = lines.iter().take(LINES_SHOWN);
        let shown: Vec<_> = shown
            .map(|(number, count)| format!("{count} by {number}"))
            .collect();
        let more = if lines.len() > LINES_SHOWN {
            ", …"
        } else {
            ""
        };
        format!("{total:>5}  {file}: {}{more}", shown.join(", "))
    };
    files.into_iter().map(text).collect()
}

/// The slots that jumps of a function lead to.
fn targets(object: &Object, function: &Function) -> BTreeSet<usize> {
    let target = |(_, instruction)| match instruction {
        Instruction::Jump { target } | Instruction::Branch { target, .. } => Some(target),
        _ => None,
    };
    object.instructions(function).filter_map(target).collect()
}

fn text(object: &Object, function: &Function, instruction: Instruction) -> String {
    let label = |target: usize| format!("L{}", target.wrapping_sub(function.start));
    match instruction {
        Instruction::Arithmetic {
            kind: Arithmetic::Negate,
            width,
            destination,
            ..
        } => {
            let name = width.name(destination);
            format!("{name} = -{name}")
        }
        Instruction::Arithmetic {
            kind,
            width,
            destination,
            operand,
        } => {
            let (name, symbol) = (width.name(destination), kind.symbol());
            format!("{name} {symbol} {}", width.operand(operand))
        }
        Instruction::ByteOrder {
            swap,
            bits,
            register,
        } => {
            let order = if swap { "be" } else { "le" };
            format!("{register} = {order}{bits} {register}")
        }
        Instruction::Jump { target } => format!("goto {}", label(target)),
        Instruction::Branch {
            test,
            width,
            left,
            right,
            target,
        } => {
            let (left, right) = (width.name(left), width.operand(right));
            format!("if {left} {} {right} goto {}", test.symbol(), label(target))
        }
        Instruction::Load {
            bytes,
            destination,
            from,
        } => format!("{destination} = *(u{} *)({from})", bytes * 8),
        Instruction::Store { bytes, to, value } => {
            let value = Width::Full.operand(value);
            format!("*(u{} *)({to}) = {value}", bytes * 8)
        }
        Instruction::Atomic {
            kind,
            fetch,
            bytes,
            at,
            operand,
        } => {
            let found = if fetch { ", fetch" } else { "" };
            let (name, bits) = (kind.name(), bytes * 8);
            format!("atomic {name} *(u{bits} *)({at}), {operand}{found}")
        }
        Instruction::Constant { destination, value } => {
            format!("{destination} = {}", constant(object, value))
        }
        Instruction::Call(callee) => format!("call {}", callee_name(object, callee)),
        Instruction::Exit => "exit".to_owned(),
        Instruction::Rest => String::new(),
    }
}

fn constant(object: &Object, value: Constant) -> String {
    match value {
        Constant::Number(number) => format!("{number:#x}"),
        Constant::Map(index) => format!("map {}", object.maps[index].name),
        Constant::Global { section, offset } => {
            let globals = &object.globals[section];
            let name = globals.variables.get(&offset);
            name.map_or_else(
                || format!("&{}+{offset}", globals.name),
                |name| format!("&{name}"),
            )
        }
    }
}

fn callee_name(object: &Object, callee: Callee) -> String {
    match callee {
        Callee::Helper(number) => helper::name(number),
        Callee::Function(start) => object
            .function_at(start)
            .map_or_else(|| format!("slot {start}"), Function::name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disasm::assembled::{self, EXIT};
    use crate::disasm::instruction::Register;
    use crate::disasm::source::Line;

    /// `if w2 s> -1 goto +2`, a constant put in by hand, two calls.
    fn object() -> Object {
        let mut object = assembled::object(&[
            (0x66, 2, 0, 2, -1),
            (0xb7, 0, 0, 0, 0),
            (0xb7, 0, 0, 0, 0),
            (0x85, 0, 0, 0, 1),
            (0x85, 0, 1, 0, 1),
            EXIT,
            (0xdb, 10, 1, -8, 0xf1),
            (0xdc, 1, 0, 0, 16),
            (0x84, 1, 0, 0, 0),
            (0x1f, 0, 1, 0, 0),
            EXIT,
        ]);
        object.code[1] = Instruction::Constant {
            destination: Register(1),
            value: Constant::Map(0),
        };
        object.code[2] = Instruction::Rest;
        object.functions = [("program", 0, 6), ("callee", 6, 5)]
            .map(|(symbol, start, slots)| assembled::function(symbol, start, slots))
            .into();
        object
    }

    const EXPECTED: [&str; 14] = [
        "program:  ; 5 instructions",
        "     0  if w2 s> -1 goto L3",
        "     1  r1 = map TABLE",
        "  L3:",
        "     3  call map_lookup_elem",
        "     4  call callee",
        "     5  exit",
        "",
        "callee:  ; 5 instructions",
        "     0  atomic compare_exchange *(u64 *)(r10 - 8), r1, fetch",
        "     1  r1 = be16 r1",
        "     2  w1 = -w1",
        "     3  r0 -= r1",
        "     4  exit",
    ];

    #[test]
    fn names_labels_and_operators() {
        let object = object();
        assert_eq!(lines(&object, &object.functions[0], None), EXPECTED);
    }

    #[test]
    fn visits_stand_before_what_was_visited() {
        let object = object();
        let mut visits = vec![0; object.code.len()];
        visits[3] = 12;
        let lines = lines(&object, &object.functions[0], Some(&visits));
        assert_eq!(lines[2], "            1  r1 = map TABLE");
        assert_eq!(lines[4], "   12×      3  call map_lookup_elem");
    }

    #[test]
    fn lines_of_the_source_are_named_where_they_begin() {
        let mut object = object();
        let line = |file: &str, number| Line {
            file: file.to_owned(),
            number,
        };
        object.lines = BTreeMap::from([
            (0, line("a.rs", 3)),
            (1, line("a.rs", 3)),
            (4, line("b.rs", 5)),
        ]);
        let lines = lines(&object, &object.functions[0], None);
        assert_eq!(lines[1..3], ["        ; a.rs:3", EXPECTED[1]]);
        assert_eq!(lines[5..8], [EXPECTED[4], "        ; b.rs:5", EXPECTED[5]]);
        assert_eq!(lines.len(), EXPECTED.len() + 2, "the callee has none");

        let visits = [1, 1, 0, 1, 1, 1, 4, 0, 0, 0, 0];
        assert_eq!(
            by_source(&object, &visits),
            [
                "    4  (unknown): 4 by 0",
                "    3  a.rs: 3 by 3",
                "    2  b.rs: 2 by 5"
            ]
        );
    }

    #[test]
    fn constants_have_the_names_of_variables() {
        let object = object();
        let global = |offset| Constant::Global { section: 0, offset };
        assert_eq!(constant(&object, global(0)), "&SEVEN");
        assert_eq!(constant(&object, global(2)), "&.rodata+2");
        assert_eq!(constant(&object, Constant::Number(255)), "0xff");
    }
}
