//! Probes against real sockets on the loopback interface.
