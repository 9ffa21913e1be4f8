//! A SYN flood: millions of opening packets, no two from the same address and port.
//!
//! The generator is the undo harness of the benches (`lb-ebpf/src/program/harness.rs`) as a live
//! XDP program: the kernel makes frames (`BPF_F_TEST_XDP_LIVE_FRAMES`), the harness gives each the
//! next source in a scattered order, and `XDP_TX` puts them on the wire of an interface, from where
//! the balancer takes them like any others.
//!
//! The packets have a wrong IPv4 header: the harness does not mend its checksum, and where that fits by
//! chance, there is an option that no kernel takes. A balancer that makes tunnels does not look at
//! either; the kernel of the backend drops what comes out of the tunnel, and counts it. So backends
//! have no part in the flood, and every packet of it is accounted for: the next ones are sent when
//! these have arrived. The queues between namespaces hold 256 packets, and a flood that overran them
//! would only show that they do.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, ProgramArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use lb_ebpf::abi;
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::command;
use crate::host::Host;
use crate::object;
use crate::packet::{self, Addresses, Segment};

/// Sources are 11.0.0.0/8: a flood has at most so many different ones.
const SOURCES: u32 = 1 << 24;
const FIRST_SOURCE: [u8; 4] = [11, 0, 0, 0];

/// Packets on the way at a time: half of a queue (`VETH_RING_SIZE` in drivers/net/veth.c is 256), so
/// that others find room.
const BURST_FRAMES: u32 = 128;

/// The frames of one burst that the kernel makes before it lets others run.
const BATCH_FRAMES: u32 = 64;

/// How long a burst may be on its way; one that has not arrived then has lost packets.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// An interface that carries nothing. See [`hold`].
const HOLDER: &str = "flood";

/// The program.
const HARNESS: &str = "weir_harness";

/// Where the fields lie that the harness writes: behind the Ethernet header is an IPv4 header of 20
/// bytes and an option.
const SOURCE_AT: u32 = 14 + 12;
const PORT_AT: u32 = 14 + 20 + OPTION.len() as u32;

/// Record route (RFC 791, section 3.1) with a length of 0, which would have to be 3 at least.
const OPTION: [u8; 4] = [7, 0, 0, 0];

/// A generator of opening packets to one address.
#[derive(Debug)]
pub struct Flood<'a> {
    ebpf: Ebpf,
    frame: Vec<u8>,
    from: &'a Host,
    interface: &'a str,
}

impl<'a> Flood<'a> {
    /// Prepares a flood of `to` out of `interface` of the host `from`.
    ///
    /// # Errors
    ///
    /// When the harness is not built, the kernel refuses it, or `from` floods already.
    pub fn new(from: &'a Host, interface: &'a str, to: SocketAddrV4) -> Result<Self> {
        let path = object::path("harness");
        let mut ebpf =
            Ebpf::load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        for name in [HARNESS, "null_tx"] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let frame = opening_packet(to);
        let mut settings: Array<_, abi::Harness> =
            ebpf.map_mut("HARNESS").context("HARNESS")?.try_into()?;
        settings.set(0, harness(&frame, to.port()), 0)?;
        let transmit: &Xdp = ebpf.program("null_tx").context("null_tx")?.try_into()?;
        let transmit = transmit.fd()?.try_clone()?;
        let next = ebpf.map_mut("UNDER_TEST").context("UNDER_TEST")?;
        ProgramArray::try_from(next)?.set(0, &transmit, 0)?;
        from.namespace().enter(|| hold(&mut ebpf))?;
        Ok(Self {
            ebpf,
            frame,
            from,
            interface,
        })
    }

    /// Sends `frames` as fast as they arrive; `arrived` counts them at the end of their way. Calls
    /// after the first go on with further sources. Returns how long it took.
    ///
    /// # Errors
    ///
    /// When packets get lost, or the kernel refuses.
    pub fn send(&self, frames: u32, mut arrived: impl FnMut() -> u64 + Send) -> Result<Duration> {
        let to = format!("{} of {}", self.interface, self.from.name());
        self.from
            .namespace()
            .enter(|| self.transmit(frames, &mut arrived))
            .with_context(|| format!("flooding from {to}"))
    }

    fn transmit(&self, frames: u32, arrived: &mut dyn FnMut() -> u64) -> Result<Duration> {
        stay_on_one_cpu()?;
        let context = context(if_nametoindex(self.interface)?, self.frame.len() as u32);
        let harness: &Xdp = self.ebpf.program(HARNESS).context(HARNESS)?.try_into()?;
        let (started, before) = (Instant::now(), arrived());
        let mut sent = 0;
        while sent < frames {
            let burst = BURST_FRAMES.min(frames - sent);
            harness.test_run(TestRunOptions {
                data_in: Some(&self.frame),
                ctx_in: Some(&context),
                repeat: burst,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH_FRAMES),
                ..TestRunOptions::default()
            })?;
            sent += burst;
            let deadline = Instant::now() + ARRIVAL_LIMIT;
            while arrived() - before < sent.into() {
                let missing = u64::from(sent) + before - arrived();
                ensure!(
                    Instant::now() < deadline,
                    "{missing} of {sent} packets are lost"
                );
                std::thread::yield_now();
            }
        }
        Ok(started.elapsed())
    }
}

/// Attaches the harness where it sees no packet. The kernel calls XDP programs through a dispatcher
/// that knows those in use. A test run of one that is not attached changes it, and changes it back
/// (`bpf_dispatcher_change_prog` in kernel/bpf/dispatcher.c), and waits for a grace period each time:
/// 40 ms for each burst.
fn hold(ebpf: &mut Ebpf) -> Result<()> {
    command::run("ip", &["link", "add", HOLDER, "type", "veth"])?;
    let harness: &mut Xdp = ebpf.program_mut(HARNESS).context(HARNESS)?.try_into()?;
    harness.attach_to_if_index(if_nametoindex(HOLDER)?, XdpMode::Skb)?;
    Ok(())
}

/// An opening packet with a wrong IPv4 header; the harness fills in the source.
fn opening_packet(to: SocketAddrV4) -> Vec<u8> {
    let addresses = Addresses::V4(FIRST_SOURCE, to.ip().octets());
    let mut frame = packet::tcp(addresses, (0, to.port()), Segment::Syn, &[]);
    frame.splice(34..34, OPTION);
    // The header is 24 bytes long, and so the packet 44.
    frame[14] = 0x46;
    frame[17] = 44;
    frame
}

/// How the harness gives each frame a source of its own.
fn harness(frame: &[u8], port: u16) -> abi::Harness {
    let mut ethernet = [0; 7];
    for (word, bytes) in ethernet.iter_mut().zip(frame.chunks(2)) {
        *word = u16::from_ne_bytes([bytes[0], bytes[1]]);
    }
    abi::Harness {
        flow_mask: SOURCES - 1,
        source: u32::from_be_bytes(FIRST_SOURCE),
        source_at: SOURCE_AT,
        port_at: PORT_AT,
        vips: 1,
        first_port: port.into(),
        frame_len: frame.len() as u32,
        growth: 0,
        ethernet,
        reserved: [0; 2],
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h): where the frame lies in the test run's input, and the
/// interface it seems to have come from, which is the one that `XDP_TX` sends it out of.
fn context(interface: u32, length: u32) -> [u8; 24] {
    let (data, data_end, data_meta, queue, egress) = (0, length, 0, 0, 0);
    let fields = [data, data_end, data_meta, interface, queue, egress];
    let mut bytes = [0; 24];
    for (field, place) in fields.iter().zip(bytes.chunks_mut(4)) {
        place.copy_from_slice(&u32::to_ne_bytes(*field));
    }
    bytes
}

/// Each CPU has a place of its own in the order of sources.
fn stay_on_one_cpu() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("staying on CPU 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_writes_where_the_source_is() {
        let frame = opening_packet(SocketAddrV4::new([203, 0, 113, 10].into(), 7000));
        let (at, port) = (SOURCE_AT as usize, PORT_AT as usize);
        assert_eq!(frame.len(), 14 + 24 + 20);
        assert_eq!(frame[at..at + 4], FIRST_SOURCE);
        assert_eq!(frame[at + 4..at + 8], [203, 0, 113, 10]);
        assert_eq!(frame[port..port + 2], [0, 0]);
        assert_eq!(frame[port + 2..port + 4], 7000_u16.to_be_bytes());
        assert_eq!(harness(&frame, 7000).ethernet[6].to_ne_bytes(), [8, 0]);
    }

    #[test]
    fn the_context_names_the_interface() {
        let context = context(7, 54);
        assert_eq!(context[4..8], 54_u32.to_ne_bytes());
        assert_eq!(context[12..16], 7_u32.to_ne_bytes());
    }
}
