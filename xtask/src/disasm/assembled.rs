//! Objects assembled by hand, for tests.
use std::collections::BTreeMap;

use super::instruction::Slot;
use super::object::{Function, Globals, Map, Object};

/// An encoded instruction: code, destination and source register, offset, immediate.
pub(super) type Encoded = (u8, u8, u8, i16, i32);

/// `exit`.
pub(super) const EXIT: Encoded = (0x95, 0, 0, 0, 0);

/// One program, one array of two 8-byte values, one constant.
pub(super) fn object(code: &[Encoded]) -> Object {
    let decode = |(at, &(code, destination, source, offset, immediate)): (usize, &Encoded)| {
        let mut bytes = vec![code, destination | source << 4];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(immediate.to_le_bytes());
        Slot::new(bytes.try_into().unwrap()).decode(at).unwrap()
    };
    Object {
        code: code.iter().enumerate().map(decode).collect(),
        functions: vec![function("program", 0, code.len())],
        maps: vec![Map {
            name: "TABLE".to_owned(),
            kind: 2,
            key_bytes: 4,
            value_bytes: 8,
            entries_max: 2,
        }],
        globals: vec![Globals {
            name: ".rodata".to_owned(),
            bytes: vec![7, 0, 0, 0],
            writable: false,
            variables: BTreeMap::from([(0, "SEVEN".to_owned())]),
        }],
        lines: BTreeMap::new(),
    }
}

/// A function; one that begins the code is a program.
pub(super) fn function(symbol: &str, start: usize, slots: usize) -> Function {
    Function {
        symbol: symbol.to_owned(),
        is_program: start == 0,
        start,
        slots,
    }
}
