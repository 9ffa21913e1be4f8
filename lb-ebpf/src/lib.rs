//! Packet logic shared by the XDP program and the host.
#![no_std]
