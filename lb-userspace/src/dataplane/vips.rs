//! Writes the VIP table of [`lb_ebpf::vip_table`]: one writer, readers that never wait.
//!
//! What to write is decided by [`Table`], which knows every cell and touches no map. An update is
//! two writes of one cell: the idle generation, then the word that makes it the live one. What a
//! packet in flight may still read, the generation and the cell that a flip has retired, is not
//! overwritten before a grace period has passed.

use lb_ebpf::abi::{Vip, VipCell, VipKey, cell_state};
use lb_ebpf::vip_table;

/// All cells, as the map has them.
#[derive(Debug)]
pub(super) struct Table {
    cells: Vec<Cell>,
    /// Changes so far.
    changes: u64,
    /// The last of the changes that a grace period has followed.
    graced: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    value: VipCell,
    /// The last change that retired something in the cell; 0 for none.
    changed: u64,
}

/// The writes that make up a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Index of the cell.
    pub(super) index: u32,
    /// Packets in flight may still read what is overwritten: wait first.
    pub(super) grace_period: bool,
    /// What to write, one after the other; packets see the last one.
    pub(super) steps: Vec<VipCell>,
}

/// Every cell in which a key may lie is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    /// The table of these cells, whose number is a power of two.
    pub(super) fn new(cells: impl IntoIterator<Item = VipCell>) -> Self {
        let cells: Vec<_> = cells
            .into_iter()
            .map(|value| Cell {
                value,
                // An agent before this one may have changed any cell a moment ago.
                changed: u64::from(value != VipCell::default()),
            })
            .collect();
        debug_assert!(cells.len().is_power_of_two());
        Self {
            cells,
            changes: 1,
            graced: 0,
        }
    }

    /// Changes so far: to be told to [`grace_passed`](Self::grace_passed) by whoever begins to wait
    /// now.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// A grace period has passed since there were so many changes.
    pub(super) fn grace_passed(&mut self, changes: u64) {
        self.graced = self.graced.max(changes);
    }

    /// All keys and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (VipKey, Vip)> {
        self.cells
            .iter()
            .filter_map(|cell| live(&cell.value).map(|vip| (cell.value.key, vip)))
    }

    /// The change that gives `key` the value `vip`.
    pub(super) fn set(&self, key: VipKey, vip: Vip) -> Result<Change, Full> {
        match self.index_of(&key) {
            Some(index) => Ok(self.replace(index, vip)),
            None => self.insert(key, vip),
        }
    }

    /// The change that removes `key`; `None` when it is not there.
    pub(super) fn remove(&self, key: &VipKey) -> Option<Change> {
        let index = self.index_of(key)?;
        let cell = self.cell(index)?;
        let state = cell_state::REMOVED;
        let steps = vec![VipCell {
            state,
            ..cell.value
        }];
        Some(Change {
            index,
            grace_period: false,
            steps,
        })
    }

    /// Takes note of a change that was written.
    pub(super) fn commit(&mut self, change: &Change) {
        self.changes += 1;
        let changes = self.changes;
        if let (Some(cell), Some(value)) = (
            self.cells.get_mut(change.index as usize),
            change.steps.last(),
        ) {
            // An insert retires nothing: no packet can have read the cell as its key's before.
            let retires = live(&cell.value).is_some();
            *cell = Cell {
                value: *value,
                changed: if retires { changes } else { cell.changed },
            };
        }
    }

    fn replace(&self, index: u32, vip: Vip) -> Change {
        let cell = self.cells[index as usize];
        let (idle, state) = match cell.value.state {
            cell_state::LIVE_FIRST => (1, cell_state::LIVE_SECOND),
            _ => (0, cell_state::LIVE_FIRST),
        };
        let mut staged = cell.value;
        staged.generations[idle] = vip;
        // Taking a flip back writes what the idle generation holds anyway; nobody sees that.
        let grace_period = staged != cell.value && !self.settled(&cell);
        Change {
            index,
            grace_period,
            steps: vec![staged, VipCell { state, ..staged }],
        }
    }

    fn insert(&self, key: VipKey, vip: Vip) -> Result<Change, Full> {
        let free = |index: &u32| {
            self.cell(*index)
                .is_some_and(|cell| live(&cell.value).is_none())
        };
        let index = vip_table::run(&key, self.mask()).find(free).ok_or(Full)?;
        let cell = self.cells[index as usize];
        let generations = [vip, Vip::default()];
        let staged = VipCell {
            key,
            generations,
            ..cell.value
        };
        let state = cell_state::LIVE_FIRST;
        let steps = vec![staged, VipCell { state, ..staged }];
        Ok(Change {
            index,
            grace_period: !self.settled(&cell),
            steps,
        })
    }

    /// Whether every packet that could read the cell before its last change is through.
    fn settled(&self, cell: &Cell) -> bool {
        cell.changed <= self.graced
    }

    fn index_of(&self, key: &VipKey) -> Option<u32> {
        vip_table::run(key, self.mask()).find(|index| {
            self.cell(*index)
                .is_some_and(|cell| cell.value.key == *key && live(&cell.value).is_some())
        })
    }

    fn cell(&self, index: u32) -> Option<&Cell> {
        self.cells.get(index as usize)
    }

    fn mask(&self) -> u32 {
        self.cells.len() as u32 - 1
    }
}

fn live(cell: &VipCell) -> Option<Vip> {
    match cell.state {
        cell_state::LIVE_FIRST => Some(cell.generations[0]),
        cell_state::LIVE_SECOND => Some(cell.generations[1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lb_ebpf::address::Address;

    use super::*;

    fn key(last: u8) -> VipKey {
        VipKey::new(Address::v4([203, 0, 113, last]), 443, 6)
    }

    fn vip(id: u32) -> Vip {
        Vip {
            id,
            ..Vip::default()
        }
    }

    fn table() -> Table {
        Table::new([VipCell::default(); 16])
    }

    /// What a reader finds.
    fn find(table: &Table, key: &VipKey) -> Option<Vip> {
        vip_table::find(key, table.mask(), |index| {
            table.cell(index).map(|cell| cell.value)
        })
    }

    fn set(table: &mut Table, key: VipKey, id: u32) -> Change {
        let change = table.set(key, vip(id)).unwrap();
        table.commit(&change);
        change
    }

    #[test]
    fn only_the_last_write_of_a_change_is_seen() {
        let mut table = table();
        for id in 1..4 {
            let before = find(&table, &key(1));
            let change = table.set(key(1), vip(id)).unwrap();
            let (last, first) = change.steps.split_last().unwrap();
            for step in first {
                let mut staged = Table::new(table.cells.iter().map(|cell| cell.value));
                staged.cells[change.index as usize].value = *step;
                assert_eq!(find(&staged, &key(1)), before, "publish {id}");
            }
            assert_ne!(first.last(), Some(last));
            table.commit(&change);
            assert_eq!(find(&table, &key(1)), Some(vip(id)));
        }
    }

    #[test]
    fn what_packets_may_still_read_waits_for_a_grace_period() {
        let mut table = table();
        assert!(
            !set(&mut table, key(1), 1).grace_period,
            "an empty cell is read by nobody"
        );
        assert!(
            !set(&mut table, key(1), 2).grace_period,
            "its other generation neither"
        );
        let begun = table.changes();
        assert!(
            set(&mut table, key(1), 3).grace_period,
            "the wait has only begun"
        );
        table.grace_passed(begun);
        assert!(
            set(&mut table, key(1), 4).grace_period,
            "it began before the last change"
        );
        table.grace_passed(table.changes());
        assert!(!set(&mut table, key(1), 5).grace_period);
        assert!(
            !table.set(key(1), vip(4)).unwrap().grace_period,
            "taken back: as it was"
        );
        let change = table.remove(&key(1)).unwrap();
        table.commit(&change);
        assert_eq!(find(&table, &key(1)), None);
        assert!(
            set(&mut table, key(1), 6).grace_period,
            "the removed cell is used again"
        );
    }

    #[test]
    fn a_run_without_a_free_cell_is_full() {
        let mut table = Table::new([VipCell::default(); 8]);
        for last in 0..8 {
            set(&mut table, key(last), u32::from(last));
        }
        assert_eq!(table.set(key(8), vip(8)), Err(Full));
        let change = table.remove(&key(3)).unwrap();
        table.commit(&change);
        set(&mut table, key(8), 8);
        let mut found: Vec<_> = table.entries().map(|(_, vip)| vip.id).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 4, 5, 6, 7, 8]);
        assert_eq!(find(&table, &key(8)), Some(vip(8)));
        assert_eq!(table.remove(&key(3)), None);
    }

    #[test]
    fn an_adopted_table_says_what_its_writer_said() {
        let mut first = table();
        set(&mut first, key(1), 1);
        set(&mut first, key(1), 2);
        set(&mut first, key(2), 3);
        let second = Table::new(first.cells.iter().map(|cell| cell.value));
        assert_eq!(find(&second, &key(1)), Some(vip(2)));
        assert_eq!(find(&second, &key(2)), Some(vip(3)));
        assert!(
            second.set(key(1), vip(4)).unwrap().grace_period,
            "its writer may be just gone"
        );
    }
}
