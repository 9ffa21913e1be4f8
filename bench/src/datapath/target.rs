//! What is asked of the figures, and whether they reach it.

use super::Row;

/// The number of flows at which rows are compared.
const FLOWS_MOST: u32 = 1 << 22;

/// A figure beside what is asked of it.
pub(super) enum Target {
    /// Nanoseconds above the floor, and as measured.
    Cost {
        what: &'static str,
        most: u64,
        above: u64,
        raw: u64,
    },
    /// How many times the cost of another row: above the floor, and as measured.
    Ratio {
        what: &'static str,
        most: f64,
        above: f64,
        raw: f64,
    },
}

/// Those targets whose rows were measured. All are about `ipip` and IPv4.
pub(super) fn all(rows: &[Row]) -> Vec<Target> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.is_common()).collect();
    // Of all rows of a packet and a number of flows, the one that is ordinary but for one thing.
    let row = |packet, flows, differs: fn(&Row) -> bool| {
        let alike = |row: &&&Row| row.packet == packet && row.flows == flows;
        rows.iter().filter(alike).find(|row| differs(row)).copied()
    };
    let ordinary: fn(&Row) -> bool = |row| row.vips == 1 && row.backends == 100 && row.moving == 0;
    let ack = |differs| row("tcp ack", FLOWS_MOST, differs);
    let ack_1 = row("tcp ack", 1, ordinary);
    let syn_1 = row("tcp syn", 1, ordinary);
    let syn = row("tcp syn", FLOWS_MOST, ordinary);
    let targets = [
        cost("settled, ack, 1 flow: ns", 50, ack_1),
        cost("settled, syn, 1 flow: ns", 50, syn_1),
        ratio("settled, ack: 4 M flows / 1", 1.10, ack(ordinary), ack_1),
        ratio("settled, syn: 4 M flows / 1", 1.10, syn, syn_1),
        ratio(
            "settled, ack: 4000 backends / 10",
            1.15,
            ack(|row| row.backends == 4000),
            ack(|row| row.backends == 10),
        ),
        ratio(
            "settled, ack: 10 000 VIPs / 1, packets to one",
            1.15,
            ack(|row| row.vips == 10_000 && row.vips_used == 1),
            ack(ordinary),
        ),
        ratio(
            "settled, ack: 10 000 VIPs / 1, packets to all",
            1.15,
            ack(|row| row.vips_used == 10_000),
            ack(ordinary),
        ),
        ratio(
            "ack: a third moving / settled",
            2.5,
            ack(|row| row.moving == 33),
            ack(ordinary),
        ),
    ];
    targets.into_iter().flatten().collect()
}

fn cost(what: &'static str, most: u64, row: Option<&Row>) -> Option<Target> {
    let row = row?;
    Some(Target::Cost {
        what,
        most,
        above: row.above(),
        raw: row.ns_per_packet,
    })
}

fn ratio(what: &'static str, most: f64, row: Option<&Row>, to: Option<&Row>) -> Option<Target> {
    let (row, to) = (row?, to?);
    let ratio = |part: fn(&Row) -> u64| part(row) as f64 / part(to).max(1) as f64;
    Some(Target::Ratio {
        what,
        most,
        above: ratio(Row::above),
        raw: ratio(|row| row.ns_per_packet),
    })
}

impl Target {
    /// What it is, what is asked at most, and what was reached above the floor and as measured.
    pub(super) fn cells(&self) -> Vec<String> {
        match *self {
            Self::Cost {
                what,
                most,
                above,
                raw,
            } => {
                let missed = if above > most { ", missed" } else { "" };
                vec![
                    what.to_owned(),
                    format!("{most} above"),
                    format!("{above}{missed}"),
                    raw.to_string(),
                ]
            }
            Self::Ratio {
                what,
                most,
                above,
                raw,
            } => {
                let show = |ratio: f64| {
                    let missed = if ratio > most { ", missed" } else { "" };
                    format!("{ratio:.2}{missed}")
                };
                vec![
                    what.to_owned(),
                    format!("{most:.2}"),
                    show(above),
                    show(raw),
                ]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(flows: u32, moving: u32, ns_per_packet: u64) -> Row {
        Row {
            case: String::new(),
            family: "v4",
            mode: "ipip",
            packet: "tcp ack",
            flows,
            vips: 1,
            vips_used: 1,
            backends: 100,
            moving,
            tracking: "moving",
            ns_per_packet,
            floor_ns: 20,
        }
    }

    #[test]
    fn figures_stand_beside_what_is_asked_of_them() {
        let rows = [
            row(1, 0, 71),
            row(FLOWS_MOST, 0, 75),
            row(FLOWS_MOST, 33, 150),
        ];
        let cells: Vec<_> = all(&rows).iter().map(Target::cells).collect();
        assert_eq!(
            cells,
            [
                ["settled, ack, 1 flow: ns", "50 above", "51, missed", "71"],
                ["settled, ack: 4 M flows / 1", "1.10", "1.08", "1.06"],
                ["ack: a third moving / settled", "2.50", "2.36", "2.00"],
            ]
        );
    }

    #[test]
    fn rows_of_other_modes_are_not_asked_about() {
        let rows = [Row {
            mode: "l2",
            ..row(1, 0, 71)
        }];
        assert!(all(&rows).is_empty());
    }
}
