//! A program as text: functions, labels, names of helpers, maps and variables.
use std::collections::BTreeSet;

use super::helper;
use super::instruction::{Arithmetic, Callee, Constant, Instruction, Width};
use super::object::{Function, Object};

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
        for (slot, instruction) in object.instructions(function) {
            let at = slot - function.start;
            if targets.contains(&slot) {
                lines.push(format!("  L{at}:"));
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
    fn constants_have_the_names_of_variables() {
        let object = object();
        let global = |offset| Constant::Global { section: 0, offset };
        assert_eq!(constant(&object, global(0)), "&SEVEN");
        assert_eq!(constant(&object, global(2)), "&.rodata+2");
        assert_eq!(constant(&object, Constant::Number(255)), "0xff");
    }
}
