//! The API gateway of Weir.
