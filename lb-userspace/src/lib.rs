//! The agent and command line of Weir.
