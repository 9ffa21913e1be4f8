//! Runs a program under the undo harness (`lb-ebpf/src/program/harness.rs`).

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::abi;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tests::object;

/// Packets of one timed run.
pub(crate) const PACKETS: u32 = 1_000_000;

/// The test run happens on the calling CPU, and its counters are that CPU's.
pub(crate) fn pin_to_first_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// The loaded harness with its floor programs.
pub(crate) struct Harness {
    ebpf: Ebpf,
}

impl Harness {
    pub(crate) fn load() -> Result<Self> {
        let path = object::path("harness");
        let mut ebpf =
            Ebpf::load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        for program in ["weir_harness", "null_tx", "encap_only_20", "encap_only_40"] {
            let xdp: &mut Xdp = ebpf
                .program_mut(program)
                .context("the harness lacks it")?
                .try_into()?;
            xdp.load().with_context(|| format!("loading {program}"))?;
        }
        Ok(Self { ebpf })
    }

    /// File descriptor of the floor for programs that grow a packet by `growth` bytes.
    pub(crate) fn floor(&self, growth: u32) -> Result<ProgramFd> {
        let name = match growth {
            20 => "encap_only_20",
            40 => "encap_only_40",
            _ => "null_tx",
        };
        let program: &Xdp = self
            .ebpf
            .program(name)
            .context("the harness lacks it")?
            .try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Sends `packets` packets through `program`; returns the mean of nanoseconds per packet, harness
    /// included.
    pub(crate) fn run(
        &mut self,
        program: &ProgramFd,
        settings: abi::Harness,
        frame: &[u8],
        packets: u32,
    ) -> Result<u64> {
        let mut map: Array<_, abi::Harness> = self
            .ebpf
            .map_mut("HARNESS")
            .context("no map HARNESS")?
            .try_into()?;
        map.set(0, settings, 0)?;
        let mut slot: ProgramArray<_> = self
            .ebpf
            .map_mut("UNDER_TEST")
            .context("no map UNDER_TEST")?
            .try_into()?;
        slot.set(0, program, 0)?;
        let driver: &Xdp = self
            .ebpf
            .program("weir_harness")
            .context("no harness")?
            .try_into()?;
        let mut out = vec![0; frame.len() + 40];
        let result = driver.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: packets,
            ..TestRunOptions::default()
        })?;
        // XDP_TX, and the last packet grown as it should: otherwise another path was timed.
        ensure!(
            result.return_value == 3,
            "the program under test returned {}",
            result.return_value
        );
        let grown = frame.len() as u32 + settings.growth;
        ensure!(
            result.data_size_out == grown,
            "the packet left with {} bytes",
            result.data_size_out
        );
        Ok(result.duration.as_nanos() as u64)
    }
}
