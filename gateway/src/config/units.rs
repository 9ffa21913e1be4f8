//! Durations, sizes and rates as text with units.
