//! Tables from what a host has to what is done on it.
use super::*;

fn compiler(directory: &str, llvm: u32) -> Compiler {
    let [rustc, cargo] =
        ["rustc", "cargo"].map(|name| PathBuf::from(format!("{directory}/{name}")));
    Compiler {
        rustc,
        cargo,
        version: Version {
            major: 1,
            minor: 96,
        },
        llvm,
    }
}

fn usable(origin: Origin, directory: &str, llvm: u32) -> Candidate {
    Candidate {
        origin,
        usable: Ok(compiler(directory, llvm)),
    }
}

fn useless(origin: Origin, reason: &str) -> Candidate {
    Candidate {
        origin,
        usable: Err(reason.to_owned()),
    }
}

fn linker(minor: u32, llvm: Option<u32>) -> Linker {
    Linker {
        path: "/cargo/bpf-linker".into(),
        version: Version { major: 0, minor },
        llvm,
    }
}

fn nightly() -> Origin {
    Origin::Nightly("nightly-x86_64".to_owned())
}

/// Debian 12 after a fresh install, with rustup's stable and us as root.
fn fresh() -> Probe {
    Probe {
        explicit: None,
        nightlies: Vec::new(),
        debian: useless(Origin::Debian, "/usr/bin/rustc is not there"),
        linkers: Vec::new(),
        installed: BTreeSet::new(),
        is_root: true,
        has_apt: true,
    }
}

/// The same with everything that [`fresh`] lacks.
fn complete() -> Probe {
    Probe {
        debian: usable(Origin::Debian, "/usr/bin", 22),
        linkers: vec![linker(13, Some(22))],
        installed: packages_of_interest().into_iter().collect(),
        ..fresh()
    }
}

#[test]
fn the_first_usable_compiler_in_the_order_of_choice() {
    let with_nightly = Probe {
        nightlies: vec![usable(nightly(), "/nightly", 22)],
        ..complete()
    };
    let bare_nightly = Probe {
        nightlies: vec![useless(nightly(), "no rust-src")],
        ..complete()
    };
    let explicit = Some(usable(Origin::Explicit, "/own", 22));
    let cases = [
        ("Debian alone", complete(), Origin::Debian, "/usr/bin/rustc"),
        (
            "nightly before Debian",
            with_nightly.clone(),
            nightly(),
            "/nightly/rustc",
        ),
        (
            "nightly without rust-src",
            bare_nightly,
            Origin::Debian,
            "/usr/bin/rustc",
        ),
        (
            "explicit before all",
            Probe {
                explicit,
                ..with_nightly
            },
            Origin::Explicit,
            "/own/rustc",
        ),
    ];
    for (description, probe, origin, rustc) in cases {
        let Ok(Plan::Ready(tools)) = plan(&probe) else {
            panic!("{description}: not ready")
        };
        assert_eq!(tools.origin, origin, "{description}");
        assert_eq!(tools.compiler.rustc, PathBuf::from(rustc), "{description}");
        assert_eq!(
            tools.linker,
            PathBuf::from("/cargo/bpf-linker"),
            "{description}"
        );
    }
}

#[test]
fn what_is_missing_is_installed() {
    let no_linker = Probe {
        linkers: Vec::new(),
        ..complete()
    };
    let old_linker = Probe {
        linkers: vec![linker(9, None)],
        ..complete()
    };
    let other_llvm = Probe {
        linkers: vec![linker(13, Some(21))],
        ..complete()
    };
    let newer_debian = Probe {
        debian: usable(Origin::Debian, "/usr/bin", 23),
        installed: BTreeSet::from(["zlib1g-dev".to_owned()]),
        ..complete()
    };
    let no_compiler = Probe {
        linkers: vec![linker(13, Some(22))],
        ..fresh()
    };
    let user_no_linker = Probe {
        is_root: false,
        ..no_linker.clone()
    };
    let cases = [
        (
            "nothing at all",
            fresh(),
            "rustc-web cargo-web rust-web-src llvm-22-dev libzstd-dev zlib1g-dev",
            Some((22, false)),
        ),
        ("linker missing", no_linker, "", Some((22, false))),
        (
            "linker missing, not root",
            user_no_linker,
            "",
            Some((22, false)),
        ),
        ("linker too old", old_linker, "", Some((22, true))),
        ("linker of another LLVM", other_llvm, "", Some((22, true))),
        (
            "compiler of another LLVM",
            newer_debian,
            "llvm-23-dev libzstd-dev",
            Some((23, true)),
        ),
        (
            "compiler missing",
            no_compiler,
            "rustc-web cargo-web rust-web-src",
            None,
        ),
    ];
    for (description, probe, packages, build) in cases {
        let Ok(Plan::Install(install)) = plan(&probe) else {
            panic!("{description}: no install")
        };
        assert_eq!(install.packages.join(" "), packages, "{description}");
        let built = install.linker.map(|build| (build.llvm, build.beside));
        assert_eq!(built, build, "{description}");
    }
}

#[test]
fn a_static_linker_is_believed() {
    let probe = Probe {
        linkers: vec![linker(13, None)],
        ..complete()
    };
    assert!(matches!(plan(&probe), Ok(Plan::Ready(_))));
}

#[test]
fn a_fitting_linker_beside_a_wrong_one_is_found() {
    let ours = Linker {
        path: "/ours".into(),
        ..linker(13, Some(22))
    };
    let probe = Probe {
        linkers: vec![linker(13, Some(21)), ours],
        ..complete()
    };
    let Ok(Plan::Ready(tools)) = plan(&probe) else {
        panic!("not ready")
    };
    assert_eq!(tools.linker, PathBuf::from("/ours"));
}

#[test]
fn refusals_say_what_to_do() {
    let explicit = Some(useless(Origin::Explicit, "/own/rustc has no rust-src"));
    let debian = useless(Origin::Debian, "/usr/bin/rustc is 1.63, older than 1.95");
    let cases = [
        (
            "a wrong explicit setting never falls through",
            Probe {
                explicit,
                ..complete()
            },
            "WEIR_BPF_RUSTC cannot be used: /own/rustc has no rust-src",
        ),
        (
            "not root",
            Probe {
                is_root: false,
                ..fresh()
            },
            "run `sudo apt-get install rustc-web cargo-web rust-web-src llvm-22-dev",
        ),
        (
            "not Debian",
            Probe {
                has_apt: false,
                ..fresh()
            },
            "this system has no apt-get",
        ),
        (
            "an LLVM that no linker knows",
            Probe {
                debian: usable(Origin::Debian, "/usr/bin", 24),
                ..complete()
            },
            "no bpf-linker can be built for LLVM 24 of /usr/bin/rustc",
        ),
        (
            "packages there, compiler still of no use",
            Probe {
                debian,
                ..complete()
            },
            "1.63, older than 1.95): set WEIR_BPF_RUSTC",
        ),
    ];
    for (description, probe, expected) in cases {
        let said = plan(&probe).expect_err(description).to_string();
        assert!(said.contains(expected), "{description}: {said}");
    }
}

#[test]
fn an_installation_is_announced_whole() {
    let Ok(Plan::Install(install)) = plan(&fresh()) else {
        panic!("no install")
    };
    assert_eq!(
        install.to_string(),
        "The BPF toolchain is incomplete: /usr/bin/rustc is not there; no bpf-linker for LLVM 22.\n\
         About to install:\n  \
         Debian packages rustc-web cargo-web rust-web-src llvm-22-dev libzstd-dev zlib1g-dev\n  \
         bpf-linker 0.13.0 with LLVM 22, by cargo (about two minutes)"
    );
}
