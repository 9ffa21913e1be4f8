//! Maps as plain memory, of one CPU. A program sees the addresses of values, as in the kernel.
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::memory::{Access, Memory};
use super::object::Map;

// `enum bpf_map_type`, include/uapi/linux/bpf.h.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;

/// The kernel rounds the values of arrays up to this.
const VALUE_ALIGN: usize = 8;
/// Bytes of all values of a map here: that of the default limits of every table of ours fits.
const MAP_BYTES_MAX: usize = 1 << 30;

// What the map helpers answer, as `-errno`.
const ENOENT: i64 = -2;
const E2BIG: i64 = -7;
const EINVAL: i64 = -22;

/// All maps of an object, in the order of its definitions.
#[derive(Debug)]
pub(super) struct Maps(Vec<MapMemory>);

#[derive(Debug)]
struct MapMemory {
    definition: Map,
    /// Stands for the map itself in the program's registers; there is nothing to read.
    handle: u64,
    /// Address of the first value.
    values: u64,
    /// Which value belongs to a key, in a hash map.
    keys: BTreeMap<Vec<u8>, usize>,
}

impl Maps {
    /// Empty maps; arrays are full of zeros.
    pub(super) fn new(definitions: &[Map], memory: &mut Memory) -> Result<Self> {
        let maps = definitions.iter().map(|definition| {
            let name = &definition.name;
            let handle = memory.add(format!("map {name} itself"), Vec::new(), Access::Read);
            let bytes = match definition.kind {
                ARRAY | PER_CPU_ARRAY | HASH | LRU_HASH => {
                    definition.entries_max.checked_mul(stride(definition))
                }
                _ => Some(0),
            };
            let bytes = bytes.filter(|bytes| *bytes <= MAP_BYTES_MAX);
            let bytes = bytes.with_context(|| format!("map {name} is too large"))?;
            let values = memory.add(format!("map {name}"), vec![0; bytes], Access::ReadWrite);
            Ok(MapMemory {
                definition: definition.clone(),
                handle,
                values,
                keys: BTreeMap::new(),
            })
        });
        maps.collect::<Result<_>>().map(Self)
    }

    /// What stands for map `index` in the program's registers.
    pub(super) fn handle(&self, index: usize) -> u64 {
        self.0[index].handle
    }

    /// `bpf_map_lookup_elem`: the address of the value, or 0.
    pub(super) fn look_up(&self, handle: u64, key: u64, memory: &Memory) -> Result<u64> {
        let map = self.by_handle(handle)?;
        let key = memory.read(key, map.definition.key_bytes)?;
        Ok(map
            .position(key)?
            .map_or(0, |position| map.address(position)))
    }

    /// `bpf_map_update_elem` with any flags 0 (make or replace): 0 or `-errno`.
    pub(super) fn update(
        &mut self,
        handle: u64,
        [key, value, flags]: [u64; 3],
        memory: &mut Memory,
    ) -> Result<i64> {
        let map = self.by_handle_mut(handle)?;
        let key = memory.read(key, map.definition.key_bytes)?.to_vec();
        let value = memory.read(value, map.definition.value_bytes)?.to_vec();
        if flags != 0 {
            return Ok(EINVAL);
        }
        let Some(position) = map.position_or_new(&key)? else {
            return Ok(E2BIG);
        };
        memory.overwrite(map.address(position), &value)?;
        Ok(0)
    }

    /// `bpf_map_delete_elem`: 0 or `-errno`.
    pub(super) fn delete(&mut self, handle: u64, key: u64, memory: &Memory) -> Result<i64> {
        let map = self.by_handle_mut(handle)?;
        let key = memory.read(key, map.definition.key_bytes)?;
        if map.definition.kind == ARRAY || map.definition.kind == PER_CPU_ARRAY {
            return Ok(EINVAL);
        }
        Ok(map.keys.remove(key).map_or(ENOENT, |_| 0))
    }

    /// Sets the value under `key` of the map called `name`, as user space would.
    pub(super) fn set(
        &mut self,
        name: &str,
        key: &[u8],
        value: &[u8],
        memory: &mut Memory,
    ) -> Result<()> {
        let map = self.0.iter_mut().find(|map| map.definition.name == name);
        let map = map.with_context(|| format!("the object has no map {name}"))?;
        let Map {
            key_bytes,
            value_bytes,
            ..
        } = map.definition;
        ensure!(
            (key.len(), value.len()) == (key_bytes, value_bytes),
            "map {name} has keys of {key_bytes} and values of {value_bytes} bytes, not {} and {}",
            key.len(),
            value.len()
        );
        let position = map.position_or_new(key)?;
        let position = position.with_context(|| format!("map {name} has no room for {key:?}"))?;
        memory.overwrite(map.address(position), value)?;
        Ok(())
    }

    /// Sets every element of the array called `name`.
    pub(super) fn fill(&self, name: &str, value: &[u8], memory: &mut Memory) -> Result<()> {
        let map = self.by_name(name)?;
        ensure!(
            value.len() == stride(&map.definition),
            "map {name} has values of {} bytes, not {}",
            map.definition.value_bytes,
            value.len()
        );
        let all = value.repeat(map.definition.entries_max);
        memory.overwrite(map.values, &all)?;
        Ok(())
    }

    /// The value under `key` of the map called `name`, if there is one.
    pub(super) fn value<'m>(
        &self,
        name: &str,
        key: &[u8],
        memory: &'m Memory,
    ) -> Result<Option<&'m [u8]>> {
        let map = self.by_name(name)?;
        let Some(position) = map.position(key)? else {
            return Ok(None);
        };
        let value = memory.read(map.address(position), map.definition.value_bytes)?;
        Ok(Some(value))
    }

    fn by_name(&self, name: &str) -> Result<&MapMemory> {
        let found = self.0.iter().find(|map| map.definition.name == name);
        found.with_context(|| format!("the object has no map {name}"))
    }

    fn by_handle(&self, handle: u64) -> Result<&MapMemory> {
        let found = self.0.iter().find(|map| map.handle == handle);
        found.with_context(|| format!("{handle:#x} is no map"))
    }

    fn by_handle_mut(&mut self, handle: u64) -> Result<&mut MapMemory> {
        let found = self.0.iter_mut().find(|map| map.handle == handle);
        found.with_context(|| format!("{handle:#x} is no map"))
    }
}

impl MapMemory {
    fn position(&self, key: &[u8]) -> Result<Option<usize>> {
        match self.definition.kind {
            ARRAY | PER_CPU_ARRAY => {
                let index = u32::from_le_bytes(key.try_into().context("an array has 4-byte keys")?);
                let index = index as usize;
                Ok((index < self.definition.entries_max).then_some(index))
            }
            HASH | LRU_HASH => Ok(self.keys.get(key).copied()),
            kind => bail!(
                "map {} is of type {kind}, whose elements are not simulated",
                self.definition.name
            ),
        }
    }

    /// A hash map that is full takes no more: nothing here is run for long enough to evict.
    fn position_or_new(&mut self, key: &[u8]) -> Result<Option<usize>> {
        if let Some(position) = self.position(key)? {
            return Ok(Some(position));
        }
        let is_hash = matches!(self.definition.kind, HASH | LRU_HASH);
        let used: Vec<usize> = self.keys.values().copied().collect();
        let free = (0..self.definition.entries_max).find(|position| !used.contains(position));
        let Some(position) = free.filter(|_| is_hash) else {
            return Ok(None);
        };
        self.keys.insert(key.to_vec(), position);
        Ok(Some(position))
    }

    fn address(&self, position: usize) -> u64 {
        self.values + (position * stride(&self.definition)) as u64
    }
}

fn stride(map: &Map) -> usize {
    map.value_bytes.next_multiple_of(VALUE_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(kind: u32, entries_max: usize) -> Map {
        Map {
            name: "TABLE".to_owned(),
            kind,
            key_bytes: 4,
            value_bytes: 4,
            entries_max,
        }
    }

    fn one(definition: Map) -> (Maps, Memory) {
        let mut memory = Memory::default();
        let maps = Maps::new(&[definition], &mut memory).unwrap();
        (maps, memory)
    }

    #[test]
    fn arrays_have_every_element_and_no_other() {
        let (mut maps, mut memory) = one(map(ARRAY, 2));
        maps.set("TABLE", &[1, 0, 0, 0], &[9, 8, 7, 6], &mut memory)
            .unwrap();
        let key = memory.add("key", vec![1, 0, 0, 0, 2, 0, 0, 0], Access::Read);
        let value = maps.look_up(maps.handle(0), key, &memory).unwrap();
        assert_eq!(memory.load(value, 4).unwrap(), 0x0607_0809);
        assert_eq!(maps.look_up(maps.handle(0), key + 4, &memory).unwrap(), 0);
        assert!(maps.look_up(key, key, &memory).is_err(), "a key is no map");
        let error = maps.set("TABLE", &[2, 0, 0, 0], &[0; 4], &mut memory);
        assert_eq!(
            error.unwrap_err().to_string(),
            "map TABLE has no room for [2, 0, 0, 0]"
        );
    }

    #[test]
    fn hash_maps_fill_up_and_are_emptied() {
        let (mut maps, mut memory) = one(map(HASH, 1));
        let handle = maps.handle(0);
        let keys = memory.add("keys", vec![1, 0, 0, 0, 2, 0, 0, 0], Access::Read);
        let mut update = |maps: &mut Maps, key, flags| {
            maps.update(handle, [key, keys, flags], &mut memory)
                .unwrap()
        };
        assert_eq!(update(&mut maps, keys, 1), EINVAL);
        assert_eq!(update(&mut maps, keys, 0), 0);
        assert_eq!(update(&mut maps, keys, 0), 0, "the same again");
        assert_eq!(update(&mut maps, keys + 4, 0), E2BIG);
        assert_eq!(
            maps.value("TABLE", &[1, 0, 0, 0], &memory).unwrap(),
            Some(&[1, 0, 0, 0][..])
        );
        assert_eq!(maps.delete(handle, keys + 4, &memory).unwrap(), ENOENT);
        assert_eq!(maps.delete(handle, keys, &memory).unwrap(), 0);
        assert_eq!(maps.look_up(handle, keys, &memory).unwrap(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (mut maps, mut memory) = one(map(ARRAY, 2));
        let error = maps
            .set("TABLE", &[0; 4], &[0; 5], &mut memory)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "map TABLE has keys of 4 and values of 4 bytes, not 4 and 5"
        );
        let error = maps.set("OTHER", &[], &[], &mut memory).unwrap_err();
        assert_eq!(error.to_string(), "the object has no map OTHER");
        let huge = Maps::new(&[map(ARRAY, MAP_BYTES_MAX / VALUE_ALIGN + 1)], &mut memory);
        assert_eq!(huge.unwrap_err().to_string(), "map TABLE is too large");
        assert!(Maps::new(&[map(ARRAY, MAP_BYTES_MAX / VALUE_ALIGN)], &mut memory).is_ok());
    }
}
