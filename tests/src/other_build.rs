//! Another build of the balancer: some instructions differ, and what they do does not.
//!
//! An upgrade is only seen to be one when the program is another one. Building a second object takes
//! a BPF toolchain; changing instructions takes none. `r = n` in 64 bits becomes `w = n` in 32 bits,
//! which clears the upper half: for a number that is not negative the same (RFC 9669, section 4).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::object;

/// The ELF section with the functions that the program calls; its own holds that call alone.
const SECTION: &str = ".text";

/// Bytes of one instruction.
const INSTRUCTION_BYTES: usize = 8;

/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_ALU | BPF_MOV | BPF_K`.
const MOVE_64: u8 = 0xb7;
const MOVE_32: u8 = 0xb4;

/// Writes all objects into `directory`, the balancer as another build of itself.
///
/// # Errors
///
/// When there are none, or the balancer has no such instruction.
pub fn write(directory: &Path) -> Result<()> {
    for name in ["balancer", "decap"] {
        let path = object::path(name);
        let mut elf = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if name == "balancer" {
            change(&mut elf).with_context(|| format!("changing {}", path.display()))?;
        }
        fs::write(directory.join(name).with_extension("o"), elf)?;
    }
    Ok(())
}

/// Changes every instruction that can be; which functions the program has use for is not known here.
fn change(elf: &mut [u8]) -> Result<()> {
    let (start, length) = section(elf).with_context(|| format!("no section `{SECTION}`"))?;
    let code = elf.get_mut(start..start + length);
    let code = code.context("the section lies outside the file")?;
    let mut changed = 0;
    for instruction in code.chunks_exact_mut(INSTRUCTION_BYTES) {
        let negative = instruction[7] & 0x80 != 0;
        if instruction[0] == MOVE_64 && !negative {
            instruction[0] = MOVE_32;
            changed += 1;
        }
    }
    ensure!(changed > 0, "no instruction to change");
    Ok(())
}

/// Start and length of the section in a little-endian ELF file of 64 bits: `Elf64_Ehdr`, `Elf64_Shdr`.
fn section(elf: &[u8]) -> Option<(usize, usize)> {
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) as usize);
    let long =
        |at: usize| usize::try_from(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?)).ok();
    let (table, size, number, names) = (long(0x28)?, half(0x3a)?, half(0x3c)?, half(0x3e)?);
    let names = long(table + names * size + 0x18)?;
    (0..number)
        .map(|index| table + index * size)
        .find_map(|header| {
            let name = elf.get(names + word(header)?..)?;
            let named = name.starts_with(SECTION.as_bytes()) && name.get(SECTION.len()) == Some(&0);
            named.then_some((long(header + 0x18)?, long(header + 0x20)?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the code begins in it.
    const CODE_AT: usize = 74;

    /// An ELF file with the sections `.s` (names) and `.text`, which holds `code`.
    fn elf(code: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        let names_at = elf.len();
        elf.extend(b"\0.s\0.text\0");
        assert_eq!(elf.len(), CODE_AT);
        elf.extend(code);
        let table_at = elf.len();
        for (name, at, length) in [(1_u32, names_at, 10), (4, CODE_AT, code.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(header);
        }
        elf[0x28..0x30].copy_from_slice(&(table_at as u64).to_le_bytes());
        elf[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&2_u16.to_le_bytes());
        elf
    }

    #[test]
    fn moves_of_numbers_that_are_not_negative_change() {
        let code = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x01, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0xb7, 0x02, 0, 0, 42, 0, 0, 0],
            [0xb7, 0x03, 0, 0, 42, 0, 0, 0],
        ];
        let before = elf(&code.concat());
        let mut after = before.clone();
        change(&mut after).unwrap();
        let different: Vec<_> = (0..before.len())
            .filter(|&at| before[at] != after[at])
            .map(|at| ((at - CODE_AT) / INSTRUCTION_BYTES, after[at]))
            .collect();
        assert_eq!(different, [(2, MOVE_32), (3, MOVE_32)]);
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        let cases = [
            (
                elf(&[0x95, 0, 0, 0, 0, 0, 0, 0]),
                "no instruction to change",
            ),
            (vec![0; 64], "no section `.text`"),
            (Vec::new(), "no section `.text`"),
        ];
        for (mut file, expected) in cases {
            assert_eq!(change(&mut file).unwrap_err().to_string(), expected);
        }
    }
}
