//! Small programs, written by hand, whose count and result a reader can check.
use super::helpers::EINVAL;
use super::*;
use crate::disasm::assembled::{EXIT, Encoded, object};

const NOW_NS: u64 = 42;

fn run_object(object: &Object) -> Result<Run, Stopped> {
    let mut machine = Machine::new(object, 1, NOW_NS).unwrap();
    machine
        .set("TABLE", &1_u32.to_le_bytes(), &5_u64.to_le_bytes())
        .unwrap();
    machine.run(&object.functions[0], &[0xaa; 60])
}

/// Result and number of instructions.
fn run(code: &[Encoded]) -> (u64, u64) {
    let run = run_object(&object(code)).unwrap();
    (run.action, run.instructions())
}

fn stopped(code: &[Encoded]) -> String {
    run_object(&object(code)).unwrap_err().to_string()
}

#[test]
fn counts_what_is_executed() {
    let cases: [(&str, &[Encoded], (u64, u64)); 6] = [
        ("w0 = 2; exit", &[(0xb4, 0, 0, 0, 2), EXIT], (2, 2)),
        (
            "r0 = 1; goto +1; r0 = 9; exit",
            &[
                (0xb7, 0, 0, 0, 1),
                (0x05, 0, 0, 1, 0),
                (0xb7, 0, 0, 0, 9),
                EXIT,
            ],
            (1, 3),
        ),
        (
            "r0 = 0; r0 += 1; if r0 < 10 goto -2; exit",
            &[
                (0xb7, 0, 0, 0, 0),
                (0x07, 0, 0, 0, 1),
                (0xa5, 0, 0, -2, 10),
                EXIT,
            ],
            (10, 22),
        ),
        (
            "r0 = 1; r0 = -r0; r0 >>= 63; exit",
            &[
                (0xb7, 0, 0, 0, 1),
                (0x87, 0, 0, 0, 0),
                (0x77, 0, 0, 0, 63),
                EXIT,
            ],
            (1, 4),
        ),
        (
            "*(u16 *)(r10 - 8) = 0x1234; r0 = *(u8 *)(r10 - 7); exit",
            &[(0x6a, 10, 0, -8, 0x1234), (0x71, 0, 10, -7, 0), EXIT],
            (0x12, 3),
        ),
        (
            "r0 = 0x0102; r0 = be16 r0; exit",
            &[(0xb7, 0, 0, 0, 0x0102), (0xdc, 0, 0, 0, 16), EXIT],
            (0x0201, 3),
        ),
    ];
    for (description, code, expected) in cases {
        assert_eq!(run(code), expected, "{description}");
    }
}

#[test]
fn functions_have_a_stack_and_four_registers_of_their_own() {
    let code = [
        (0xb7, 6, 0, 0, 5),    // 0: r6 = 5
        (0x7b, 10, 6, -8, 0),  //    *(u64 *)(r10 - 8) = r6
        (0xbf, 1, 10, 0, 0),   //    r1 = r10
        (0x85, 0, 1, 0, 2),    //    call 6
        (0x0f, 0, 6, 0, 0),    //    r0 += r6
        EXIT,                  //
        (0x79, 0, 1, -8, 0),   // 6: r0 = *(u64 *)(r1 - 8)
        (0xb7, 6, 0, 0, 1000), //    r6 = 1000
        (0x7b, 10, 6, -8, 0),  //    *(u64 *)(r10 - 8) = r6
        EXIT,                  //
    ];
    assert_eq!(run(&code), (10, 10));
}

#[test]
fn helpers_are_counted_and_answer() {
    let mut code = vec![
        (0x62, 10, 0, -4, 1), // 0: *(u32 *)(r10 - 4) = 1
        (0xbf, 2, 10, 0, 0),  //    r2 = r10
        (0x07, 2, 0, 0, -4),  //    r2 += -4
        (0xb7, 1, 0, 0, 0),   // 3: r1 = map TABLE, put in below
        (0x05, 0, 0, 0, 0),   //
        (0x85, 0, 0, 0, 1),   // 5: call map_lookup_elem
        (0x79, 6, 0, 0, 0),   //    r6 = *(u64 *)(r0 + 0)
        (0x85, 0, 0, 0, 5),   //    call ktime_get_ns
        (0x0f, 0, 6, 0, 0),   //    r0 += r6
        EXIT,
    ];
    let with_map = |code: &[Encoded]| {
        let mut object = object(code);
        object.code[3] = Instruction::Constant {
            destination: Register(1),
            value: Constant::Map(0),
        };
        object.code[4] = Instruction::Rest;
        object
    };
    let run = run_object(&with_map(&code)).unwrap();
    assert_eq!((run.action, run.instructions()), (NOW_NS + 5, 9));
    assert_eq!(run.helpers, BTreeMap::from([(1, 1), (5, 1)]));
    assert_eq!(run.visits, [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]);

    // An index beyond the end: the helper answers 0, which must not be read.
    code[0] = (0x62, 10, 0, -4, 2);
    let error = run_object(&with_map(&code)).unwrap_err().to_string();
    assert_eq!(
        error,
        "program was stopped at program+6: 8 bytes at 0x0, where there is nothing"
    );
}

#[test]
fn atomics_change_memory_and_tell_what_was_there() {
    const AT: i16 = -8;
    let cases = [
        ("add", 0x00, 7 + 3, 3),
        ("fetch and add", 0x01, 7 + 3, 7),
        ("or", 0x40, 7 | 3, 3),
        ("and", 0x50, 7 & 3, 3),
        ("xor", 0xa0, 7 ^ 3, 3),
        ("exchange", 0xe1, 3, 7),
        ("compare and exchange, equal", 0xf1, 3, 3),
    ];
    for (description, kind, memory, register) in cases {
        let code = |result: Encoded| {
            vec![
                (0x7a, 10, 0, AT, 7),    // *(u64 *)(r10 - 8) = 7
                (0xb7, 0, 0, 0, 7),      // r0 = 7
                (0xb7, 1, 0, 0, 3),      // r1 = 3
                (0xdb, 10, 1, AT, kind), // the atomic, with r1
                result,
                EXIT,
            ]
        };
        assert_eq!(
            run(&code((0x79, 0, 10, AT, 0))).0,
            memory,
            "{description}: memory"
        );
        assert_eq!(
            run(&code((0xbf, 0, 1, 0, 0))).0,
            register,
            "{description}: register"
        );
    }
    let unequal = [
        (0x7a, 10, 0, AT, 7),
        (0xb7, 0, 0, 0, 6),
        (0xdb, 10, 0, AT, 0xf1),
        EXIT,
    ];
    assert_eq!(run(&unequal).0, 7, "what was there");
}

#[test]
fn a_packet_is_read_between_its_bounds_and_its_head_moves() {
    let code = [
        (0xbf, 6, 1, 0, 0),   // r6 = r1
        (0xb4, 2, 0, 0, -20), // w2 = -20
        (0x85, 0, 0, 0, 44),  // call xdp_adjust_head
        (0x61, 1, 6, 0, 0),   // r1 = *(u32 *)(r6 + 0): data
        (0x72, 1, 0, 0, 1),   // *(u8 *)(r1 + 0) = 1
        (0x61, 0, 6, 4, 0),   // r0 = *(u32 *)(r6 + 4): data_end
        (0x1f, 0, 1, 0, 0),   // r0 -= r1
        EXIT,
    ];
    let run = run_object(&object(&code)).unwrap();
    assert_eq!((run.action, run.instructions()), (80, 8));
    assert_eq!(run.packet.len(), 80);
    assert_eq!((run.packet[0], run.packet[20]), (1, 0xaa));

    let cases = [(-256, 0), (-257, EINVAL), (46, 0), (47, EINVAL)];
    for (by, expected) in cases {
        let code = [(0xb4, 2, 0, 0, by), (0x85, 0, 0, 0, 44), EXIT];
        let run = run_object(&object(&code)).unwrap();
        assert_eq!(run.action as i64, expected, "{by}");
    }
}

#[test]
fn what_goes_wrong_is_stopped_where_it_does() {
    let cases: [(&str, &[Encoded]); 8] = [
        (
            "program+1: 4 bytes at offset 316 of the packet, which has 256..316",
            // r2 = *(u32 *)(r1 + 4): data_end; r0 = *(u32 *)(r2 + 0)
            &[(0x61, 2, 1, 4, 0), (0x61, 0, 2, 0, 0), EXIT],
        ),
        (
            "program+0: 8 bytes at offset 508 of the stack, 0 calls deep, which has 0..512",
            &[(0x7a, 10, 0, -4, 0), EXIT],
        ),
        (
            "program+0: a write to the context, which is read-only",
            &[(0x62, 1, 0, 0, 0), EXIT],
        ),
        (
            "program+0: it calls helper_9999, which is not simulated; `machine/helpers.rs` is the \
             place to add it",
            &[(0x85, 0, 0, 0, 9999), EXIT],
        ),
        (
            "program+0: more than 1000000 instructions: an endless loop?",
            &[(0x05, 0, 0, -1, 0)],
        ),
        ("program+0: more than 8 calls deep", &[(0x85, 0, 1, 0, -1)]),
        ("slot 1: there is no instruction", &[(0xb7, 0, 0, 0, 0)]),
        (
            // What a call leaves in r1 is nobody's.
            "program+1: 1 bytes at 0xdeaddeaddeaddead, where there is nothing",
            &[(0x85, 0, 0, 0, 5), (0x71, 0, 1, 0, 0), EXIT],
        ),
    ];
    for (expected, code) in cases {
        assert_eq!(stopped(code), format!("program was stopped at {expected}"));
    }
}

#[test]
fn calls_go_as_deep_as_the_kernel_lets_them() {
    // r6 counts down in memory: if *(r1) is 0, exit; else one less, and call itself.
    let program = |calls: i32| {
        vec![
            (0x7a, 10, 0, -8, calls), // 0: *(u64 *)(r10 - 8) = calls
            (0xbf, 1, 10, 0, 0),      //    r1 = r10
            (0x07, 1, 0, 0, -8),      //    r1 += -8
            (0x85, 0, 1, 0, 1),       //    call 5
            EXIT,
            (0x79, 0, 1, 0, 0),  // 5: r0 = *(u64 *)(r1 + 0)
            (0x15, 0, 0, 3, 1),  //    if r0 == 1 goto 10
            (0x07, 0, 0, 0, -1), //    r0 += -1
            (0x7b, 1, 0, 0, 0),  //    *(u64 *)(r1 + 0) = r0
            (0x85, 0, 1, 0, -5), //    call 5
            EXIT,                // 10
        ]
    };
    assert_eq!(run(&program(FRAMES_MAX as i32 - 1)).0, 1);
    let error = stopped(&program(FRAMES_MAX as i32));
    assert!(error.ends_with("more than 8 calls deep"), "{error}");
}

#[test]
fn runs_are_the_same_again_and_maps_keep_what_they_left() {
    // r1 = map TABLE's first element through a constant; add 1 to it; return it.
    let mut object = object(&[
        (0x62, 10, 0, -4, 0),
        (0xbf, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -4),
        (0xb7, 1, 0, 0, 0),
        (0x05, 0, 0, 0, 0),
        (0x85, 0, 0, 0, 1),
        (0x79, 1, 0, 0, 0),
        (0x07, 1, 0, 0, 1),
        (0x7b, 0, 1, 0, 0),
        (0xbf, 0, 1, 0, 0),
        EXIT,
    ]);
    object.code[3] = Instruction::Constant {
        destination: Register(1),
        value: Constant::Map(0),
    };
    object.code[4] = Instruction::Rest;
    let mut machine = Machine::new(&object, 1, NOW_NS).unwrap();
    for expected in 1..=3 {
        let run = machine.run(&object.functions[0], &[0; 60]).unwrap();
        assert_eq!((run.action, run.instructions()), (expected, 10));
    }
    let value = machine.value("TABLE", &[0; 4]).unwrap();
    assert_eq!(value, Some(&3_u64.to_le_bytes()[..]));
}
