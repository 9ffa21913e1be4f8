//! The kernel's helpers by number and name (`include/uapi/linux/bpf.h`, `___BPF_FUNC_MAPPER`).

/// Those that XDP programs of ours call, or may want to.
const NAMES: [(i32, &str); 24] = [
    (1, "map_lookup_elem"),
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (5, "ktime_get_ns"),
    (6, "trace_printk"),
    (7, "get_prandom_u32"),
    (8, "get_smp_processor_id"),
    (12, "tail_call"),
    (23, "redirect"),
    (25, "perf_event_output"),
    (28, "csum_diff"),
    (44, "xdp_adjust_head"),
    (51, "redirect_map"),
    (54, "xdp_adjust_meta"),
    (65, "xdp_adjust_tail"),
    (69, "fib_lookup"),
    (125, "ktime_get_boot_ns"),
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
    (160, "ktime_get_coarse_ns"),
    (181, "loop"),
    (195, "map_lookup_percpu_elem"),
];

/// The name of helper `number`, without the `bpf_` in front; its number, if it has no name here.
pub(super) fn name(number: i32) -> String {
    let found = NAMES.iter().find(|(known, _)| *known == number);
    found.map_or_else(
        || format!("helper_{number}"),
        |(_, name)| (*name).to_owned(),
    )
}
