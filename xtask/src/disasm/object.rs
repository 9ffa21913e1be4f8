//! A BPF object as the loader sees it: code, functions, maps and data sections, with relocations
//! resolved (Linux, `Documentation/bpf/llvm_reloc.rst`).
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use object::elf::{R_BPF_64_32, R_BPF_64_64};
use object::read::elf::{ElfFile64, ElfSection64, ElfSymbol64};
use object::{
    Architecture, LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _,
    RelocationFlags, RelocationTarget, SectionIndex, SectionKind, SymbolKind,
};

use super::instruction::{Callee, Constant, Instruction, SLOT_BYTES, Slot};
use super::source::{self, Line};

/// Where aya's `#[map]` puts definitions.
const MAPS_SECTION: &str = "maps";
/// Sections with entry points of programs begin like this.
const PROGRAM_SECTION: &str = "xdp";

/// A linked object.
#[derive(Debug)]
pub(super) struct Object {
    /// The instructions of all sections, one after the other, slot by slot.
    pub(super) code: Vec<Instruction>,
    /// In the order of the code.
    pub(super) functions: Vec<Function>,
    /// In the order of their definitions.
    pub(super) maps: Vec<Map>,
    /// Data sections, read-only and writable ones.
    pub(super) globals: Vec<Globals>,
    /// By the slot where a line's instructions begin.
    pub(super) lines: BTreeMap<usize, Line>,
}

/// A function: an entry point of the kernel, or one that others call.
#[derive(Debug)]
pub(super) struct Function {
    /// As the linker knows it.
    pub(super) symbol: String,
    /// The kernel can start here.
    pub(super) is_program: bool,
    /// Its first slot in the code.
    pub(super) start: usize,
    /// How many slots it takes.
    pub(super) slots: usize,
}

/// A map definition (`struct bpf_map_def`, libbpf).
#[derive(Clone, Debug)]
pub(super) struct Map {
    pub(super) name: String,
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    pub(super) entries_max: usize,
}

/// A data section.
#[derive(Debug)]
pub(super) struct Globals {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) writable: bool,
    /// The variables in it: offset, name.
    pub(super) variables: BTreeMap<u64, String>,
}

impl Object {
    /// Reads and links the object at `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("{}; `cargo xtask ebpf` builds it", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let elf = ElfFile64::<LittleEndian>::parse(bytes).context("is no ELF file")?;
        ensure!(elf.architecture() == Architecture::Bpf, "is no BPF object");
        let layout = Layout::of(&elf)?;
        let maps = layout.maps.values().map(|(_, map)| map.clone()).collect();
        let mut code = Vec::new();
        let mut lines = BTreeMap::new();
        let mut sources = source_lines(&elf)?;
        for (index, start) in &layout.code {
            ensure!(code.len() == *start, "code sections are not in order");
            let section = elf.section_by_index(*index)?;
            let name = section.name().unwrap_or("?").to_owned();
            let linked = layout.link(&elf, &section, *start);
            code.extend(linked.with_context(|| format!("section `{name}`"))?);
            let begins = sources.remove(&name).unwrap_or_default();
            lines.extend(begins.into_iter().map(|(slot, line)| (start + slot, line)));
        }
        Ok(Self {
            code,
            functions: layout.functions,
            maps,
            globals: layout.globals,
            lines,
        })
    }

    /// The entry points of the kernel.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| function.is_program)
    }

    /// The program called `name`.
    pub(super) fn program(&self, name: &str) -> Option<&Function> {
        self.programs().find(|program| program.symbol == name)
    }

    /// The function whose code contains `slot`.
    pub(super) fn function_at(&self, slot: usize) -> Option<&Function> {
        self.functions
            .iter()
            .find(|function| function.contains(slot))
    }

    /// The line of the source that the instruction in `slot` was made for, where that is known.
    pub(super) fn line(&self, slot: usize) -> Option<&Line> {
        let function = self.function_at(slot)?;
        let before = self.lines.range(function.start..=slot);
        before.map(|(_, line)| line).next_back()
    }

    /// `slot` as a person finds it in a listing.
    pub(super) fn place(&self, slot: usize) -> String {
        self.function_at(slot).map_or_else(
            || format!("slot {slot}"),
            |function| format!("{}+{}", function.name(), slot - function.start),
        )
    }

    /// The code of a function, with the slots where it stands.
    pub(super) fn instructions(
        &self,
        function: &Function,
    ) -> impl Iterator<Item = (usize, Instruction)> {
        let slots = function.start..function.start + function.slots;
        slots
            .map(|slot| (slot, self.code[slot]))
            .filter(|(_, instruction)| *instruction != Instruction::Rest)
    }

    /// `program` and the functions it can come to, itself first.
    pub(super) fn reachable(&self, program: &Function) -> Vec<&Function> {
        let mut starts = BTreeSet::from([program.start]);
        let mut waiting = vec![program.start];
        let mut found = Vec::new();
        while let Some(function) = waiting.pop().and_then(|start| self.function_at(start)) {
            found.push(function);
            for (_, instruction) in self.instructions(function) {
                if let Instruction::Call(Callee::Function(start)) = instruction
                    && starts.insert(start)
                {
                    waiting.push(start);
                }
            }
        }
        found
    }
}

impl Function {
    /// Its path in the source, without type parameters: `lb_ebpf::track::owner`.
    pub(super) fn name(&self) -> String {
        let readable = format!("{:#}", rustc_demangle::demangle(&self.symbol));
        let plain = readable.split("::<").next().unwrap_or_default();
        plain.to_owned()
    }

    fn contains(&self, slot: usize) -> bool {
        (self.start..self.start + self.slots).contains(&slot)
    }
}

/// Where things of the file are in the linked object.
struct Layout {
    /// First slot of each code section.
    code: Vec<(SectionIndex, usize)>,
    functions: Vec<Function>,
    /// By offset in their section; with the index in the object.
    maps: BTreeMap<u64, (usize, Map)>,
    maps_section: Option<SectionIndex>,
    globals: Vec<Globals>,
    /// Index in `globals` of each data section.
    global_sections: BTreeMap<usize, usize>,
}

type Elf<'a> = ElfFile64<'a, LittleEndian>;

impl Layout {
    fn of(elf: &Elf<'_>) -> Result<Self> {
        let mut layout = Self {
            code: Vec::new(),
            functions: Vec::new(),
            maps: BTreeMap::new(),
            maps_section: elf
                .section_by_name(MAPS_SECTION)
                .map(|section| section.index()),
            globals: Vec::new(),
            global_sections: BTreeMap::new(),
        };
        let mut slots = 0;
        for section in elf.sections() {
            if section.kind() == SectionKind::Text {
                layout.code.push((section.index(), slots));
                slots += section.size() as usize / SLOT_BYTES;
            } else if is_data(&section) {
                layout.add_globals(&section)?;
            }
        }
        for symbol in elf.symbols() {
            layout.add_symbol(elf, &symbol)?;
        }
        layout.functions.sort_by_key(|function| function.start);
        for (index, (slot, _)) in layout.maps.values_mut().enumerate() {
            *slot = index;
        }
        Ok(layout)
    }

    fn add_globals(&mut self, section: &ElfSection64<'_, '_, LittleEndian>) -> Result<()> {
        let name = section.name()?.to_owned();
        let mut bytes = section.data()?.to_vec();
        bytes.resize(section.size() as usize, 0);
        self.global_sections
            .insert(section.index().0, self.globals.len());
        self.globals.push(Globals {
            writable: !name.starts_with(".rodata"),
            name,
            bytes,
            variables: BTreeMap::new(),
        });
        Ok(())
    }

    fn add_symbol(
        &mut self,
        elf: &Elf<'_>,
        symbol: &ElfSymbol64<'_, '_, LittleEndian>,
    ) -> Result<()> {
        let Some(section) = symbol.section_index() else {
            return Ok(());
        };
        let name = symbol.name()?.to_owned();
        if symbol.kind() == SymbolKind::Text {
            let section_name = elf.section_by_index(section)?.name()?.to_owned();
            self.functions.push(Function {
                symbol: name,
                is_program: section_name.starts_with(PROGRAM_SECTION),
                start: self.slot(section, symbol.address())?,
                slots: symbol.size() as usize / SLOT_BYTES,
            });
        } else if Some(section) == self.maps_section && symbol.kind() == SymbolKind::Data {
            let content = elf.section_by_index(section)?;
            let definition = content
                .data_range(symbol.address(), symbol.size())?
                .and_then(|bytes| map(name.clone(), bytes));
            let map = definition.with_context(|| format!("map `{name}` has no definition"))?;
            self.maps.insert(symbol.address(), (0, map));
        } else if let Some(index) = self.global_sections.get(&section.0)
            && symbol.kind() == SymbolKind::Data
        {
            let variables = &mut self.globals[*index].variables;
            variables.insert(symbol.address(), name);
        }
        Ok(())
    }

    fn slot(&self, section: SectionIndex, address: u64) -> Result<usize> {
        let found = self.code.iter().find(|(index, _)| *index == section);
        let (_, start) = found.context("a function lies outside of the code")?;
        Ok(start + address as usize / SLOT_BYTES)
    }

    fn link(
        &self,
        elf: &Elf<'_>,
        section: &ElfSection64<'_, '_, LittleEndian>,
        start: usize,
    ) -> Result<Vec<Instruction>> {
        let (slots, rest) = section.data()?.as_chunks::<SLOT_BYTES>();
        ensure!(rest.is_empty(), "ends in the middle of an instruction");
        let slots: Vec<Slot> = slots.iter().map(|bytes| Slot::new(*bytes)).collect();
        let relocations: BTreeMap<usize, _> = section
            .relocations()
            .map(|(offset, relocation)| (offset as usize / SLOT_BYTES, relocation))
            .collect();
        let mut code = Vec::with_capacity(slots.len());
        while code.len() < slots.len() {
            let at = code.len();
            let relocation = relocations.get(&at);
            let place = || format!("the instruction in slot {at}");
            if slots[at].is_wide() {
                let second = slots.get(at + 1).context("half a constant at the end")?;
                let value = match relocation {
                    Some(relocation) => self.symbol(elf, relocation, slots[at]),
                    None => Ok(Constant::Number(wide(slots[at], *second))),
                };
                code.push(Instruction::Constant {
                    destination: slots[at].destination,
                    value: value.with_context(place)?,
                });
                code.push(Instruction::Rest);
            } else if let (true, Some(relocation)) = (slots[at].is_local_call(), relocation) {
                let callee = self.callee(elf, relocation, slots[at]);
                code.push(Instruction::Call(callee.with_context(place)?));
            } else {
                code.push(slots[at].decode(start + at).with_context(place)?);
            }
        }
        Ok(code)
    }

    /// What a 64-bit constant stands for: a map, or a byte of a data section.
    fn symbol(
        &self,
        elf: &Elf<'_>,
        relocation: &object::Relocation,
        slot: Slot,
    ) -> Result<Constant> {
        let (section, address) = target(elf, relocation, R_BPF_64_64)?;
        if Some(section) == self.maps_section {
            let found = self.maps.get(&address);
            let (index, _) = found.context("refers to no map")?;
            return Ok(Constant::Map(*index));
        }
        let index = self.global_sections.get(&section.0);
        let index = index.context("refers neither to a map nor to data")?;
        Ok(Constant::Global {
            section: *index,
            offset: address.wrapping_add_signed(i64::from(slot.immediate)),
        })
    }

    fn callee(&self, elf: &Elf<'_>, relocation: &object::Relocation, slot: Slot) -> Result<Callee> {
        let (section, address) = target(elf, relocation, R_BPF_64_32)?;
        // The immediate counts from the next instruction, as in a call without relocation.
        let start = self.slot(section, address)? as i64 + i64::from(slot.immediate) + 1;
        let is_function = |function: &&Function| function.start as i64 == start;
        let found = self.functions.iter().find(is_function);
        let function = found.ok_or_else(|| anyhow!("calls into the middle of a function"))?;
        Ok(Callee::Function(function.start))
    }
}

/// Section and offset that a relocation points to.
fn target(
    elf: &Elf<'_>,
    relocation: &object::Relocation,
    expected: u32,
) -> Result<(SectionIndex, u64)> {
    let RelocationTarget::Symbol(index) = relocation.target() else {
        bail!("a relocation without a symbol");
    };
    let RelocationFlags::Elf { r_type } = relocation.flags() else {
        bail!("a relocation of another format");
    };
    ensure!(r_type == expected, "a relocation of type {r_type}");
    let symbol = elf.symbol_by_index(index)?;
    let name = symbol.name().unwrap_or("?");
    let section = symbol.section_index();
    let section = section.with_context(|| format!("`{name}` is not defined"))?;
    Ok((section, symbol.address()))
}

/// The source lines of each section by its name; none in an object without type data.
fn source_lines(elf: &Elf<'_>) -> Result<BTreeMap<String, Vec<(usize, Line)>>> {
    let sections = [".BTF", ".BTF.ext"].map(|name| elf.section_by_name(name));
    let [Some(types), Some(extension)] = sections else {
        return Ok(BTreeMap::new());
    };
    source::lines(types.data()?, extension.data()?)
}

fn is_data(section: &ElfSection64<'_, '_, LittleEndian>) -> bool {
    let name = section.name().unwrap_or_default();
    [".rodata", ".data", ".bss"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

fn wide(first: Slot, second: Slot) -> u64 {
    u64::from(first.immediate as u32) | u64::from(second.immediate as u32) << 32
}

fn map(name: String, definition: &[u8]) -> Option<Map> {
    let (words, _) = definition.as_chunks::<4>();
    let &[kind, key, value, entries, ..] = words else {
        return None;
    };
    let [key, value, entries] = [key, value, entries].map(|word| u32::from_le_bytes(word) as usize);
    Some(Map {
        name,
        kind: u32::from_le_bytes(kind),
        key_bytes: key,
        value_bytes: value,
        entries_max: entries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disasm::assembled::{self, EXIT};

    #[test]
    fn what_is_no_bpf_object_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text.o");
        std::fs::write(&text, "text").unwrap();
        let cases = [
            (text, "is no ELF file"),
            (std::env::current_exe().unwrap(), "is no BPF object"),
            (
                directory.path().join("none.o"),
                "`cargo xtask ebpf` builds it",
            ),
        ];
        for (path, expected) in cases {
            let error = format!("{:#}", Object::open(&path).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn map_definitions_are_five_words() {
        let words = [2_u32, 4, 64, 1000, 0x400];
        let definition = words.map(u32::to_le_bytes).concat();
        let found = map("VIPS".to_owned(), &definition).unwrap();
        assert_eq!((found.kind, found.key_bytes), (2, 4));
        assert_eq!((found.value_bytes, found.entries_max), (64, 1000));
        assert!(map("VIPS".to_owned(), &definition[..15]).is_none());
    }

    #[test]
    fn names_are_paths_without_types() {
        let cases = [
            ("weir_balancer", "weir_balancer"),
            (
                "_RNvNvNtCs7EhpQkiLKgA_8balancer7program13weir_balancer13weir_balancer",
                "balancer::program::weir_balancer::weir_balancer",
            ),
            (
                "_RINvNtCs5I4UfwRHAau_7lb_ebpf5track14owner_of_frameNtNtCs7EhpQkiLKgA_8balancer5\
                 frame8XdpFrameNtNtBQ_6tables9MapTablesEBQ_",
                "lb_ebpf::track::owner_of_frame",
            ),
        ];
        for (symbol, expected) in cases {
            assert_eq!(assembled::function(symbol, 0, 1).name(), expected);
        }
    }

    #[test]
    fn a_program_comes_to_what_it_calls_and_what_that_calls() {
        let mut object = assembled::object(&[
            (0x85, 0, 1, 0, 1), // program: call middle
            EXIT,
            (0x85, 0, 1, 0, 2),  // middle: call last
            (0x85, 0, 1, 0, -2), // and itself
            EXIT,
            EXIT, // last
            EXIT, // alone
        ]);
        object.functions = [
            ("program", 0, 2),
            ("middle", 2, 3),
            ("last", 5, 1),
            ("alone", 6, 1),
        ]
        .map(|(symbol, start, slots)| assembled::function(symbol, start, slots))
        .into();
        let reachable = object.reachable(object.program("program").unwrap());
        let names: Vec<_> = reachable.iter().map(|function| function.name()).collect();
        assert_eq!(names, ["program", "middle", "last"]);
        assert_eq!(object.place(4), "middle+2");
        assert!(
            object.program("middle").is_none(),
            "the kernel cannot start there"
        );
    }
}
