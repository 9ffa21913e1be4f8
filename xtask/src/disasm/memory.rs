//! The memory of a simulated program: regions far apart, each access checked.
use std::ops::Range;

/// The packet lies below 2^32: the context keeps its bounds in 32 bits each.
pub(super) const PACKET: u64 = 0x1000_0000;

/// Distance of all other regions: no slip of an index reaches from one into the next.
const DISTANCE: u64 = 1 << 40;

/// An access that hit nothing, or not what it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessError {
    /// No region begins anywhere near.
    #[error("{bytes} bytes at {address:#x}, where there is nothing")]
    Nowhere {
        /// Of the first byte.
        address: u64,
        /// How many.
        bytes: usize,
    },
    /// A region is near, and the access reaches beyond it.
    #[error("{bytes} bytes at offset {offset} of {region}, which has {valid:?}")]
    Outside {
        /// Of the first byte, from the beginning of the region.
        offset: u64,
        /// How many.
        bytes: usize,
        /// Its name.
        region: String,
        /// The offsets that exist.
        valid: Range<usize>,
    },
    /// A write to constants.
    #[error("a write to {0}, which is read-only")]
    ReadOnly(String),
}

/// What a region may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

#[derive(Debug)]
struct Region {
    name: String,
    base: u64,
    bytes: Vec<u8>,
    /// Of a packet, what lies between its bounds; else all of it.
    valid: Range<usize>,
    access: Access,
}

/// All memory that a program can come to.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By base.
    regions: Vec<Region>,
    made: u64,
}

impl Memory {
    /// A new region of `bytes`; returns the address of the first.
    pub(super) fn add(&mut self, name: impl Into<String>, bytes: Vec<u8>, access: Access) -> u64 {
        self.made += 1;
        let base = self.made * DISTANCE;
        self.insert(name.into(), base, bytes, access);
        base
    }

    /// Puts a packet of `bytes`, of which only `valid` may be touched, in the place of an earlier
    /// one.
    pub(super) fn place_packet(&mut self, bytes: Vec<u8>, valid: Range<usize>) {
        self.remove(PACKET);
        self.insert("the packet".to_owned(), PACKET, bytes, Access::ReadWrite);
        self.bound_packet(valid);
    }

    /// Moves the bounds of the packet.
    pub(super) fn bound_packet(&mut self, valid: Range<usize>) {
        if let Some(packet) = self.at_base(PACKET) {
            packet.valid = valid;
        }
    }

    /// The packet between its bounds.
    pub(super) fn packet(&self) -> &[u8] {
        let packet = self.regions.iter().find(|region| region.base == PACKET);
        packet.map_or(&[], |packet| &packet.bytes[packet.valid.clone()])
    }

    /// Forgets the region that begins at `base`.
    pub(super) fn remove(&mut self, base: u64) {
        self.regions.retain(|region| region.base != base);
    }

    /// `bytes` bytes from `address` on.
    pub(super) fn read(&self, address: u64, bytes: usize) -> Result<&[u8], AccessError> {
        let (index, range) = self.find(address, bytes)?;
        Ok(&self.regions[index].bytes[range])
    }

    /// The same, to be changed.
    pub(super) fn write(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], AccessError> {
        let (index, range) = self.find(address, bytes)?;
        let region = &mut self.regions[index];
        if region.access == Access::Read {
            return Err(AccessError::ReadOnly(region.name.clone()));
        }
        Ok(&mut region.bytes[range])
    }

    /// Overwrites what lies at `address`, as the kernel does: read-only or not.
    pub(super) fn overwrite(&mut self, address: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let (index, range) = self.find(address, bytes.len())?;
        self.regions[index].bytes[range].copy_from_slice(bytes);
        Ok(())
    }

    /// A little-endian number of `bytes` bytes.
    pub(super) fn load(&self, address: u64, bytes: usize) -> Result<u64, AccessError> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.read(address, bytes)?);
        Ok(u64::from_le_bytes(number))
    }

    /// Stores the lower `bytes` bytes of `number`, little-endian.
    pub(super) fn store(
        &mut self,
        address: u64,
        bytes: usize,
        number: u64,
    ) -> Result<(), AccessError> {
        let place = self.write(address, bytes)?;
        place.copy_from_slice(&number.to_le_bytes()[..bytes]);
        Ok(())
    }

    fn insert(&mut self, name: String, base: u64, bytes: Vec<u8>, access: Access) {
        let at = self.regions.partition_point(|region| region.base < base);
        let valid = 0..bytes.len();
        let region = Region {
            name,
            base,
            bytes,
            valid,
            access,
        };
        self.regions.insert(at, region);
    }

    fn at_base(&mut self, base: u64) -> Option<&mut Region> {
        self.regions.iter_mut().find(|region| region.base == base)
    }

    /// Index of the region, and the range of its bytes.
    fn find(&self, address: u64, bytes: usize) -> Result<(usize, Range<usize>), AccessError> {
        let after = self
            .regions
            .partition_point(|region| region.base <= address);
        let nowhere = AccessError::Nowhere { address, bytes };
        let index = after.checked_sub(1).ok_or(nowhere.clone())?;
        let region = &self.regions[index];
        let offset = address - region.base;
        if offset >= DISTANCE / 2 {
            return Err(nowhere);
        }
        let start = offset as usize;
        if start < region.valid.start || start + bytes > region.valid.end {
            return Err(AccessError::Outside {
                offset,
                bytes,
                region: region.name.clone(),
                valid: region.valid.clone(),
            });
        }
        Ok((index, start..start + bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_stay_inside() {
        let mut memory = Memory::default();
        let base = memory.add("a map", vec![0; 8], Access::ReadWrite);
        memory.store(base + 2, 4, 0xaabb_1122_3344).unwrap();
        assert_eq!(
            memory.read(base, 8).unwrap(),
            [0, 0, 0x44, 0x33, 0x22, 0x11, 0, 0]
        );
        assert_eq!(memory.load(base + 3, 2).unwrap(), 0x2233);
        let error = memory.load(base + 5, 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "4 bytes at offset 5 of a map, which has 0..8"
        );
        let error = memory.store(base - 1, 1, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 bytes at 0xffffffffff, where there is nothing"
        );
        assert!(memory.load(0, 1).is_err());
    }

    #[test]
    fn constants_are_not_written() {
        let mut memory = Memory::default();
        let base = memory.add("constants", vec![7], Access::Read);
        assert_eq!(memory.load(base, 1).unwrap(), 7);
        let error = memory.store(base, 1, 8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a write to constants, which is read-only"
        );
    }

    #[test]
    fn a_packet_ends_at_its_bounds() {
        let mut memory = Memory::default();
        memory.place_packet(vec![1, 2, 3, 4], 1..3);
        assert_eq!(memory.packet(), [2, 3]);
        assert!(memory.load(PACKET, 1).is_err());
        assert!(memory.load(PACKET + 2, 2).is_err());
        assert_eq!(memory.load(PACKET + 2, 1).unwrap(), 3);
        memory.bound_packet(0..4);
        assert_eq!(memory.load(PACKET, 4).unwrap(), 0x0403_0201);
        memory.place_packet(vec![9], 0..1);
        assert_eq!(memory.packet(), [9]);
    }
}
