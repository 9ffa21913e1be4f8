//! Properties of the ring: the paper's, and the three promises of the module.
