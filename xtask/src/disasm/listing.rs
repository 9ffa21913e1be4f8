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
