//! The test bed of Weir.
