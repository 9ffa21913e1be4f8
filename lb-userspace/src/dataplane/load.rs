//! Loading the balancer: object → maps (made or adopted) → program.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_ebpf::abi::{self, Settings, global, map, program};
use lb_ebpf::address::Address;
use lb_ebpf::{flow_table, vip_table};
use tracing::{debug, info, warn};

use super::link::{self, Attached};
use super::log::{self, KernelLog};
use super::maps::{Maps, Sizes, open_map, typed};
use super::pin::Owner;
use super::{Error, Pins, is_permission};
use crate::config::XdpMode;

include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// Names the directory to read objects from at run time, instead of the embedded ones.
const DIRECTORY_VARIABLE: &str = "WEIR_BPF_DIR";

/// Lines of the verifier's log that an error shows; `WEIR_LOG=debug` shows all of them.
const VERDICT_LINES_MAX: usize = 10;

/// Maps that are pinned. The program's log ring and its constants are not: they go with the program.
const PINNED: [&str; 12] = [
    map::SETTINGS,
    map::VIPS,
    map::RINGS,
    map::MARKS,
    map::EXCEPTIONS,
    map::FLOWS,
    map::BUDGET,
    map::TRACK_COUNTS,
    map::BACKENDS,
    map::REASON_COUNTS,
    map::VIP_COUNTS,
    map::BACKEND_COUNTS,
];

/// Whether this process has BPF objects to load, embedded or by `WEIR_BPF_DIR`.
pub fn objects_present() -> bool {
    object("balancer", BALANCER).is_ok()
}

/// The embedded balancer, or the one the environment names.
fn balancer() -> Result<Cow<'static, [u8]>, Error> {
    object("balancer", BALANCER)
}

/// The embedded decapsulation program, or the one the environment names.
pub(super) fn decap() -> Result<Cow<'static, [u8]>, Error> {
    object("decap", DECAP)
}

fn object(
    name: &'static str,
    embedded: Option<&'static [u8]>,
) -> Result<Cow<'static, [u8]>, Error> {
    match std::env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) => {
            let path = PathBuf::from(directory).join(name).with_extension("o");
            fs::read(&path)
                .map(Cow::Owned)
                .map_err(|source| Error::Object { path, source })
        }
        None => embedded.map(Cow::Borrowed).ok_or(Error::NoObject(name)),
    }
}

/// The balancer's handles into the kernel.
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    pins: Pins,
    adopted: bool,
    _owner: Owner,
}

impl Dataplane {
    /// Loads the program under `bpffs`, over the maps that are pinned there or over new ones.
    ///
    /// Nothing is attached yet; a program that is attached already goes on undisturbed.
    ///
    /// # Errors
    ///
    /// When BPF is not to be had, or what is pinned does not fit this build and these sizes. Nothing
    /// that was there before has changed then.
    pub fn open(bpffs: &Path, sizes: Sizes, log: KernelLog) -> Result<Self, Error> {
        let object = balancer()?;
        let pins = Pins::new(bpffs);
        let owner = pins.prepare()?;
        let adopted = check_pinned(&pins, sizes)?;
        let ebpf = load(&object, &pins, sizes, log)?;
        let mut maps = Maps::open(&pins)?;
        if !adopted {
            maps.write_settings(&Settings {
                hash_key: random_key()?,
                source_v6: Address::default(),
                source_v4: Address::default(),
                version: abi::VERSION,
                quiet_s: 0,
            })?;
        }
        info!(path = %bpffs.display(), adopted, "data plane loaded");
        Ok(Self {
            ebpf,
            maps,
            pins,
            adopted,
            _owner: owner,
        })
    }

    /// Whether maps of an earlier agent were taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The maps, to read.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The maps, to change.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Sets the key of the flow hash.
    ///
    /// # Errors
    ///
    /// When the map cannot be read or written.
    pub fn set_hash_key(&mut self, hash_key: [u64; 2]) -> Result<(), Error> {
        let old = self.maps.read_settings()?;
        if old.hash_key == hash_key {
            return Ok(());
        }
        if self.adopted {
            warn!("the hash key has changed: flows move to other backends");
        }
        self.maps.write_settings(&Settings { hash_key, ..old })
    }

    /// Sets the sources of outer headers; `None` keeps the one there is.
    ///
    /// The kernel copies the settings 8 bytes at a time, so an IPv6 source that changes while packets
    /// flow may be seen half changed by those of that moment. It changes when the host's own address
    /// does, and then nothing else of the way holds either.
    ///
    /// # Errors
    ///
    /// When the map cannot be read or written.
    pub fn set_sources(&mut self, v4: Option<IpAddr>, v6: Option<IpAddr>) -> Result<(), Error> {
        let old = self.maps.read_settings()?;
        let new = Settings {
            source_v4: v4.map_or(old.source_v4, Address::from),
            source_v6: v6.map_or(old.source_v6, Address::from),
            ..old
        };
        if new == old {
            return Ok(());
        }
        info!(?v4, ?v6, "sources of outer headers");
        self.maps.write_settings(&new)
    }

    /// Sets after how many seconds without a packet a flow counts as ended.
    ///
    /// # Errors
    ///
    /// When the map cannot be read or written.
    pub fn set_quiet(&mut self, quiet_s: u32) -> Result<(), Error> {
        let old = self.maps.read_settings()?;
        if old.quiet_s == quiet_s {
            return Ok(());
        }
        self.maps.write_settings(&Settings { quiet_s, ..old })
    }

    /// Attaches the program to `interface`, or replaces the one in its pinned link.
    ///
    /// # Errors
    ///
    /// [`Error::InterfaceUnknown`], [`Error::InterfaceBusy`], [`Error::NativeUnsupported`],
    /// [`Error::Permission`], [`Error::Link`].
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, Error> {
        let path = self.pins.link(interface);
        link::attach(
            program_of(&mut self.ebpf, program::BALANCER)?,
            &path,
            interface,
            mode,
        )
    }

    /// Detaches the program from interfaces that are not in `wanted`. Returns their names.
    pub fn detach_others(&self, wanted: &[String]) -> Result<Vec<String>, Error> {
        let mut interfaces = self.pins.linked_interfaces();
        interfaces.retain(|interface| !wanted.contains(interface));
        for interface in &interfaces {
            let path = self.pins.link(interface);
            fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
        Ok(interfaces)
    }

    /// Detaches from every interface and removes the maps, with all counters.
    pub fn remove(self) -> Result<Vec<String>, Error> {
        self.pins.remove()
    }

    /// Hands what the kernel program logs to `tracing`, until the future is dropped.
    ///
    /// # Errors
    ///
    /// When the program was loaded without logging.
    pub fn kernel_log(&mut self) -> io::Result<impl Future<Output = ()> + use<>> {
        Ok(log::forward(log::open(&mut self.ebpf)?))
    }
}

/// The layout version of the maps pinned under `bpffs`; `None` when there are none.
///
/// # Errors
///
/// When there are, and they cannot be read.
pub fn pinned_version(bpffs: &Path) -> Result<Option<u32>, Error> {
    version(&Pins::new(bpffs))
}

fn version(pins: &Pins) -> Result<Option<u32>, Error> {
    if !pins.map(map::SETTINGS).exists() {
        return Ok(None);
    }
    let settings = open_map(pins, map::SETTINGS)?;
    let settings: Array<_, Settings> = typed(map::SETTINGS, Map::Array(settings))?;
    let settings = settings
        .get(&0, 0)
        .map_err(|source| Error::map("read", map::SETTINGS, source))?;
    Ok(Some(settings.version))
}

/// Whether there are maps to adopt. Fails when there are, and they do not fit.
fn check_pinned(pins: &Pins, sizes: Sizes) -> Result<bool, Error> {
    let Some(found) = version(pins)? else {
        return Ok(false);
    };
    // Version 0: an agent died between making the maps and filling them.
    if found != 0 && found != abi::VERSION {
        return Err(Error::Version {
            found,
            wanted: abi::VERSION,
        });
    }
    for (name, wanted) in sizes.elements() {
        if !pins.map(name).exists() {
            continue;
        }
        let info = open_map(pins, name)?
            .info()
            .map_err(|source| Error::map("examine", name, source))?;
        if info.max_entries() != wanted {
            let found = info.max_entries();
            return Err(Error::Size {
                map: name,
                what: "elements",
                found,
                wanted,
            });
        }
    }
    Ok(found != 0)
}

/// Parses the object, makes or opens its maps, loads its program.
fn load(object: &[u8], pins: &Pins, sizes: Sizes, log: KernelLog) -> Result<Ebpf, Error> {
    let level: u8 = match log {
        KernelLog::Off => 0,
        KernelLog::Debug => aya_log::Level::Debug as u8,
    };
    let mut loader = EbpfLoader::new();
    for name in PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, elements) in sizes.elements() {
        loader.map_max_entries(name, elements);
    }
    let vip_cell_mask = vip_table::cells(sizes.vips) - 1;
    let exception_mask = flow_table::buckets(sizes.exceptions) - 1;
    let flow_mask = flow_table::buckets(sizes.flows) - 1;
    loader
        .override_global(global::VIP_CELL_MASK, &vip_cell_mask, true)
        .override_global(global::EXCEPTION_BUCKET_MASK, &exception_mask, true)
        .override_global(global::FLOW_BUCKET_MASK, &flow_mask, true)
        .override_global(global::INSERTS_PER_SECOND, &sizes.inserts_per_second, true);
    // An object built without logging has no such constant.
    loader.override_global(aya_log::LEVEL, &level, false);
    let mut ebpf = loader.load(object).map_err(load_error)?;
    load_program(&mut ebpf, program::BALANCER)?;
    Ok(ebpf)
}

/// Loads the XDP program `name` into the kernel.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    program_of(ebpf, name)?
        .load()
        .map_err(|error| program_error(name, error))
}

fn program_error(name: &'static str, error: ProgramError) -> Error {
    let permission = is_permission(&error);
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let verdict = verdict(&log);
            // The verifier refuses with EACCES too, but then says why.
            if permission && verdict.is_empty() {
                return Error::Permission("loading a BPF program");
            }
            debug!(name, "the verifier's log:\n{log}");
            Error::Program {
                name,
                errno: io_error,
                verdict,
            }
        }
        _ if permission => Error::Permission("loading a BPF program"),
        error => Error::ProgramLoad {
            name,
            source: Box::new(error),
        },
    }
}

/// The last lines of the verifier's log, where it says what it minds, each on a line of its own.
fn verdict(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(VERDICT_LINES_MAX)..];
    last.iter().map(|line| format!("\n    {line}")).collect()
}

pub(super) fn load_error(error: aya::EbpfError) -> Error {
    if is_permission(&error) {
        return Error::Permission("making BPF maps");
    }
    Error::Load(Box::new(error))
}

pub(super) fn program_of<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let missing = Error::Missing {
        kind: "program",
        name,
    };
    match ebpf.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(missing),
    }
}

/// 128 random bits from the kernel.
fn random_key() -> Result<[u64; 2], Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::io("read", path, source))?;
    let key = u128::from_ne_bytes(bytes);
    Ok([key as u64, (key >> 64) as u64])
}
