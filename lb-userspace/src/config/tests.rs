//! Configurations: right ones, and a table of wrong ones with what is said about each.
