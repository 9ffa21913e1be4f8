//! From as typed to as meant: every rule about a configuration, in one pass that finds all mistakes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::error::Mistake;
use super::file::{self, nearest};
use super::model::{
    Agent, BPFFS_DEFAULT, Backend, Config, Limits, SOCKET_DEFAULT, Secret, Vip, VipAddress,
    WEIGHT_DEFAULT, XdpMode,
};
use super::{Forward, HashBy, Tracking, health, rules, units};
use crate::table::{self, Table};

/// Interfaces of one agent, at most.
pub(super) const INTERFACES_MAX: usize = 64;

/// Bytes of a Unix socket's path, at most (`sun_path` less the closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bounds of what the data plane can be created with: ids of VIPs and backends have 16 bits, and ring
/// slots cost sixteen bytes each (two generations, each with its mark).
const VIPS: RangeInclusive<i64> = 1..=65_535;
const BACKENDS: RangeInclusive<i64> = 1..=65_535;
const RING_SLOTS: RangeInclusive<i64> = 251..=134_217_728;

/// Flows in either of the tables that remember them: 32 KiB to 1 GiB.
const FLOWS: RangeInclusive<i64> = 1024..=33_554_432;

/// More than a CPU receives packets in a second is no budget.
const INSERTS: RangeInclusive<i64> = 1..=100_000_000;

/// Bounds of both settle times: moves are dated in seconds, modulo 18 hours.
const SETTLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(12 * 3600);
const SETTLE_AFTER: Duration = Duration::from_secs(60);
const SETTLE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Mistakes found so far, each at its place.
pub(super) struct Checker<'a> {
    /// Where relative paths start: the directory of the file.
    directory: &'a Path,
    found: Vec<(Range<usize>, Mistake)>,
}

/// Turns the typed file into what it means, or lists everything that is wrong with it.
pub(super) fn check(
    typed: &file::File,
    directory: &Path,
) -> Result<Config, Vec<(Range<usize>, Mistake)>> {
    let mut checker = Checker {
        directory,
        found: Vec::new(),
    };
    let agent = checker.agent(typed.agent.as_ref());
    let vips = checker.vips(&typed.vips);
    match agent {
        Some(agent) if checker.found.is_empty() => {
            let config = Config { agent, vips };
            checker.limits_hold(typed, &config);
            if checker.found.is_empty() {
                Ok(config)
            } else {
                Err(checker.found)
            }
        }
        _ => Err(checker.found),
    }
}

impl Checker<'_> {
    /// Keeps the mistake, if it is one, at `span`.
    pub(super) fn note<T>(&mut self, span: Range<usize>, result: Result<T, Mistake>) -> Option<T> {
        result
            .map_err(|mistake| self.found.push((span, mistake)))
            .ok()
    }

    /// Reads an optional value: `None` for a mistake, `default` for absence.
    pub(super) fn optional<T, U>(
        &mut self,
        value: Option<&Spanned<T>>,
        default: U,
        read: impl FnOnce(&T) -> Result<U, Mistake>,
    ) -> Option<U> {
        match value {
            Some(value) => self.note(value.span(), read(value.get_ref())),
            None => Some(default),
        }
    }

    fn agent(&mut self, typed: Option<&Spanned<file::Agent>>) -> Option<Agent> {
        let Some(typed) = typed else {
            return self.note(0..0, Err(no_interfaces()));
        };
        let (place, typed) = (typed.span(), typed.get_ref());
        let interfaces = self.interfaces(place, typed.interfaces.as_ref());
        let metrics = self.optional(typed.metrics.as_ref(), None, |text| {
            units::socket_address(text).map(Some)
        });
        let socket = self.optional(typed.socket.as_ref(), SOCKET_DEFAULT.into(), socket_path);
        let bpffs = self.optional(typed.bpffs.as_ref(), BPFFS_DEFAULT.into(), absolute_path);
        let xdp_mode = self.optional(typed.xdp_mode.as_ref(), XdpMode::Auto, |text| {
            choice(
                "xdp_mode",
                text,
                &[XdpMode::Native, XdpMode::Generic, XdpMode::Auto],
            )
        });
        let source_v4 = self.optional(typed.source_v4.as_ref(), None, |text| {
            rules::outer_source(text, false).map(Some)
        });
        let source_v6 = self.optional(typed.source_v6.as_ref(), None, |text| {
            rules::outer_source(text, true).map(Some)
        });
        let hash_secret = self.secret(typed.hash_secret.as_ref());
        let settle_after = self.optional(typed.settle_after.as_ref(), SETTLE_AFTER, |text| {
            units::duration("settle_after", text, SETTLE)
        });
        let deadline = typed.settle_deadline.as_ref();
        let settle_deadline = self.optional(deadline, SETTLE_DEADLINE, |text| {
            units::duration("settle_deadline", text, SETTLE)
        });
        let limits = self.limits(&typed.limits);
        Some(Agent {
            interfaces: interfaces?,
            metrics: metrics?,
            socket: socket?,
            bpffs: bpffs?,
            xdp_mode: xdp_mode?,
            source_v4: source_v4?,
            source_v6: source_v6?,
            hash_secret: hash_secret?,
            settle_after: settle_after?,
            settle_deadline: settle_deadline?,
            limits: limits?,
        })
    }

    fn interfaces(
        &mut self,
        agent: Range<usize>,
        typed: Option<&Spanned<Vec<Spanned<String>>>>,
    ) -> Option<Vec<String>> {
        let Some(typed) = typed else {
            return self.note(agent, Err(no_interfaces()));
        };
        let names = typed.get_ref();
        if names.is_empty() {
            return self.note(typed.span(), Err(no_interfaces()));
        }
        if names.len() > INTERFACES_MAX {
            let mistake = Mistake::new(
                format!("{} interfaces are more than {INTERFACES_MAX}", names.len()),
                "list the interfaces that packets to the VIPs arrive on, no others",
            );
            return self.note(typed.span(), Err(mistake));
        }
        for (i, name) in names.iter().enumerate() {
            self.note(name.span(), units::interface(name.get_ref()));
            if names[..i]
                .iter()
                .any(|earlier| earlier.get_ref() == name.get_ref())
            {
                let reason = format!("interface `{}` is listed twice", name.get_ref());
                self.note::<()>(name.span(), Err(Mistake::new(reason, "remove one of them")));
            }
        }
        Some(names.iter().map(|name| name.get_ref().clone()).collect())
    }

    fn secret(&mut self, typed: Option<&Spanned<file::Secret>>) -> Option<Option<Secret>> {
        let Some(typed) = typed else {
            return Some(None);
        };
        let secret = match (&typed.get_ref().file, &typed.get_ref().env) {
            (Some(file), None) => Ok(Secret::File(self.directory.join(file.get_ref()))),
            (None, Some(env)) => Ok(Secret::Env(env.get_ref().clone())),
            _ => Err(Mistake::new(
                "`hash_secret` takes exactly one of `file` and `env`",
                "write `hash_secret = { file = \"/etc/weir/hash.key\" }`",
            )),
        };
        self.note(typed.span(), secret).map(Some)
    }

    fn limits(&mut self, typed: &file::Limits) -> Option<Limits> {
        let mut limit = |what, value: &Option<Spanned<i64>>, default, bounds| {
            self.optional(value.as_ref(), default, |value| {
                units::number(what, *value, bounds).map(|value| value as u32)
            })
        };
        let Limits {
            vips_max,
            backends_max,
            ring_slots_max,
            exceptions_max,
            flows_max,
            inserts_per_second_max,
        } = Limits::default();
        let slots = &typed.ring_slots_max;
        let inserts = &typed.inserts_per_second_max;
        let key = "inserts_per_second_max";
        // All of them are read before the first mistake ends this.
        let vips_max = limit("vips_max", &typed.vips_max, vips_max, VIPS);
        let backends_max = limit("backends_max", &typed.backends_max, backends_max, BACKENDS);
        let ring_slots_max = limit("ring_slots_max", slots, ring_slots_max, RING_SLOTS);
        let exceptions_max = limit(
            "exceptions_max",
            &typed.exceptions_max,
            exceptions_max,
            FLOWS,
        );
        let flows_max = limit("flows_max", &typed.flows_max, flows_max, FLOWS);
        let inserts_per_second_max = limit(key, inserts, inserts_per_second_max, INSERTS);
        Some(Limits {
            vips_max: vips_max?,
            backends_max: backends_max?,
            ring_slots_max: ring_slots_max?,
            exceptions_max: exceptions_max?,
            flows_max: flows_max?,
            inserts_per_second_max: inserts_per_second_max?,
        })
    }

    /// The limits bound what the file itself asks for. Each is told at the first VIP that is too many.
    fn limits_hold(&mut self, typed: &file::File, config: &Config) {
        let mut places: Vec<_> = typed
            .vips
            .keys()
            .map(|key| (key.span(), key.get_ref()))
            .collect();
        places.sort_by_key(|(span, _)| span.start);
        let mut so_far = rules::Totals::default();
        for (span, name) in places {
            so_far.add(&config.vips[name]);
            if self
                .note(span, so_far.within(&config.agent.limits))
                .is_none()
            {
                return;
            }
        }
    }

    fn vips(&mut self, typed: &BTreeMap<Spanned<String>, file::Vip>) -> BTreeMap<String, Vip> {
        let mut in_file_order: Vec<_> = typed.iter().collect();
        in_file_order.sort_by_key(|(name, _)| name.span().start);
        let mut claimed: HashMap<VipAddress, &str> = HashMap::new();
        let mut vips = BTreeMap::new();
        for (name, typed) in in_file_order {
            let Some(vip) = self.vip(name, typed) else {
                continue;
            };
            if let Some(other) = claimed.insert(vip.vip_address(), name.get_ref()) {
                let place = typed.address.as_ref().map_or(name.span(), Spanned::span);
                self.note::<()>(place, Err(rules::claimed_twice(&vip, other)));
            }
            vips.insert(vip.name.clone(), vip);
        }
        vips
    }

    fn vip(&mut self, key: &Spanned<String>, typed: &file::Vip) -> Option<Vip> {
        let name = key.get_ref();
        self.note(key.span(), units::name("VIP", name));
        let address = match &typed.address {
            Some(text) => self.note(text.span(), units::vip_address(text.get_ref())),
            None => self.note(key.span(), Err(rules::no_vip_address(name))),
        };
        let forward = self.optional(typed.forward.as_ref(), Forward::Ipip, |text| {
            choice("forward", text, &[Forward::L2, Forward::Ipip])
        });
        let hash = self.optional(typed.hash.as_ref(), HashBy::FiveTuple, |text| {
            choice("hash", text, &[HashBy::FiveTuple, HashBy::Source])
        });
        let size = typed.ring_size.as_ref();
        let ring_size = self.optional(size, table::SIZE_DEFAULT, rules::ring_size);
        let table = self.optional(typed.table.as_ref(), Table::default(), |text| {
            choice("table", text, &Table::ALL)
        });
        let tracking = self.optional(typed.tracking.as_ref(), Tracking::default(), |text| {
            choice(
                "tracking",
                text,
                &[Tracking::None, Tracking::Moving, Tracking::Full],
            )
        });
        let health = match (&typed.health, address) {
            (Some(health), Some(address)) => health::check(self, health, address).map(Some),
            (Some(_), None) => None,
            (None, _) => Some(None),
        };
        let backends: Vec<_> = typed
            .backends
            .iter()
            .map(|(key, typed)| self.backend(key, typed))
            .collect();
        let VipAddress {
            address,
            port,
            protocol,
        } = address?;
        let mut vip = Vip {
            name: name.clone(),
            address,
            port,
            protocol,
            forward: forward?,
            ring_size: ring_size?,
            hash: hash?,
            table: table?,
            tracking: tracking?,
            health: health?,
            backends: BTreeMap::new(),
        };
        let mut addresses: HashMap<IpAddr, String> = HashMap::new();
        for (backend, typed) in backends.into_iter().zip(typed.backends.values()) {
            let (backend, place) = (backend?, typed.address.as_ref()?.span());
            self.note(place.clone(), rules::forwardable(&vip, &backend));
            if let Some(other) = addresses.insert(backend.address, backend.name.clone()) {
                self.note::<()>(place, Err(rules::same_address(&backend, &other)));
            }
            vip.backends.insert(backend.name.clone(), backend);
        }
        let place = typed.ring_size.as_ref().map_or(key.span(), Spanned::span);
        self.note(place, rules::shares_fit(&vip));
        Some(vip)
    }

    fn backend(&mut self, key: &Spanned<String>, typed: &file::Backend) -> Option<Backend> {
        let name = key.get_ref();
        self.note(key.span(), units::name("backend", name));
        let address = match &typed.address {
            Some(text) => self.note(text.span(), units::unicast_address(text.get_ref())),
            None => self.note(key.span(), Err(rules::no_backend_address(name))),
        };
        let weight = self.optional(typed.weight.as_ref(), WEIGHT_DEFAULT, rules::weight);
        Some(Backend {
            name: name.clone(),
            address: address?,
            weight: weight?,
        })
    }
}

fn no_interfaces() -> Mistake {
    Mistake::new(
        "the agent has no interfaces",
        "name those that packets to the VIPs arrive on: `interfaces = [\"eth0\"]` under `[agent]`",
    )
}

/// One of a few words.
fn choice<T: Copy + ToString>(what: &str, text: &str, choices: &[T]) -> Result<T, Mistake> {
    let words: Vec<String> = choices.iter().map(T::to_string).collect();
    if let Some(i) = words.iter().position(|word| word == text) {
        return Ok(choices[i]);
    }
    let hint = match nearest(text, words.iter().map(String::as_str)) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("use one of: {}", words.join(", ")),
    };
    Err(Mistake::new(
        format!("`{text}` is not a value of `{what}`"),
        hint,
    ))
}

fn absolute_path(text: &String) -> Result<PathBuf, Mistake> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Mistake::new(
        format!("`{text}` is not an absolute path"),
        "begin it with `/`: the agent may be started from any directory",
    ))
}

fn socket_path(text: &String) -> Result<PathBuf, Mistake> {
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return Err(Mistake::new(
            format!("the path of the socket is {} bytes long", text.len()),
            format!("the kernel takes up to {SOCKET_PATH_BYTES_MAX}: choose a shorter one"),
        ));
    }
    absolute_path(text)
}
