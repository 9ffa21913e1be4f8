//! Tables of paths and their normal forms, under the default rules and under each other one.

use proptest::prelude::*;

use super::*;

const STRICT: PathRules = PathRules {
    dot_segments: DotSegments::Refuse,
    empty_segments: EmptySegments::Refuse,
    encoded_slashes: RefuseOrKeep::Refuse,
    backslashes: RefuseOrKeep::Refuse,
    parameters: RefuseOrKeep::Keep,
};

fn settled(path: &str, rules: PathRules) -> Result<String, Reject> {
    let mut uri: Uri = path.parse().unwrap();
    settle(&mut uri, 64, rules).map(|()| uri.to_string())
}

fn check(rules: PathRules, table: &[(&str, Result<&str, Reject>)]) {
    for (path, expected) in table {
        let expected = expected.clone().map(str::to_owned);
        assert_eq!(settled(path, rules), expected, "{path} by {rules:?}");
    }
}

#[test]
fn paths_have_one_normal_form() {
    use Reject as R;
    check(
        STRICT,
        &[
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/a/", Ok("/a/")),
            ("/%61dmin", Ok("/admin")),
            ("/%7euser", Ok("/~user")),
            ("/a%2db", Ok("/a-b")),
            ("/caf%c3%a9", Ok("/caf%C3%A9")),
            ("/a%20b", Ok("/a%20b")),
            ("/a%25b", Ok("/a%25b")),
            ("/a%252e%252e", Ok("/a%252e%252e")),
            ("/a|b{c}^[d]", Ok("/a%7Cb%7Bc%7D%5E%5Bd%5D")),
            ("/a\"b", Ok("/a%22b")),
            ("/a:b@c!$&'()*+,=", Ok("/a:b@c!$&'()*+,=")),
            ("/a...b/...", Ok("/a...b/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/a;v=1/b", Ok("/a;v=1/b")),
            ("/a%3Bv=1/b", Ok("/a%3Bv=1/b")),
            ("/a?b=%2F../..", Ok("/a?b=%2F../..")),
            ("/a?b=//\\%00", Ok("/a?b=//\\%00")),
            ("http://h/%61", Ok("/a")),
            ("/a/../b", Err(R::PathDotSegment)),
            ("/a/..", Err(R::PathDotSegment)),
            ("/./a", Err(R::PathDotSegment)),
            ("/%2e%2E/a", Err(R::PathDotSegment)),
            ("/a%2e./b/.%2e", Err(R::PathDotSegment)),
            ("/a/..;/b", Err(R::PathDotSegment)),
            ("/a/..;x=1/b", Err(R::PathDotSegment)),
            ("/a/%2e%2e%3Bx/b", Err(R::PathDotSegment)),
            ("//a", Err(R::PathEmptySegment)),
            ("/a//b", Err(R::PathEmptySegment)),
            ("/a//", Err(R::PathEmptySegment)),
            ("/a%2Fb", Err(R::PathEncodedSlash)),
            ("/a%2fb", Err(R::PathEncodedSlash)),
            ("/a%5Cb", Err(R::PathBackslash)),
            ("/a\\b", Err(R::PathBackslash)),
            ("/a%00", Err(R::PathControl)),
            ("/a%0d%0a", Err(R::PathControl)),
            ("/a%7f", Err(R::PathControl)),
            ("/a%", Err(R::PathEscape)),
            ("/a%2", Err(R::PathEscape)),
            ("/a%zz", Err(R::PathEscape)),
            ("/a%+1", Err(R::PathEscape)),
            ("/a%u002e", Err(R::PathEscape)),
            ("/a%c0%af", Err(R::PathOverlong)),
            ("/a%C1%9C", Err(R::PathOverlong)),
            ("/a%c0", Ok("/a%C0")),
            ("/caf\u{e9}", Err(R::BadTarget)),
            ("/a?\u{e9}", Err(R::BadTarget)),
            ("*", Err(R::AsteriskForm)),
        ],
    );
}

#[test]
fn dot_segments_can_be_resolved() {
    use Reject as R;
    let rules = PathRules {
        dot_segments: DotSegments::Resolve,
        ..STRICT
    };
    check(
        rules,
        &[
            ("/a/../b", Ok("/b")),
            ("/a/b/../../c", Ok("/c")),
            ("/a/./b/.", Ok("/a/b/")),
            ("/a/..", Ok("/")),
            ("/%2e%2e%2fb", Err(R::PathEncodedSlash)),
            ("/a/%2e%2e/b", Ok("/b")),
            // Above the root: most servers stay there, some climb.
            ("/..", Err(R::PathDotSegment)),
            ("/a/../../b", Err(R::PathDotSegment)),
            // Seen by some servers only.
            ("/a/..;/b", Err(R::PathDotSegment)),
        ],
    );
    let merging = PathRules {
        empty_segments: EmptySegments::Merge,
        ..rules
    };
    let keeping = PathRules {
        empty_segments: EmptySegments::Keep,
        ..rules
    };
    for rules in [merging, keeping] {
        // `/b` or `/a/b`, depending on what is done first.
        check(rules, &[("/a//../b", Err(R::PathDotSegment))]);
    }
}

#[test]
fn empty_segments_can_be_merged_or_kept() {
    let merging = PathRules {
        empty_segments: EmptySegments::Merge,
        ..STRICT
    };
    check(
        merging,
        &[
            ("//a///b", Ok("/a/b")),
            ("/a//", Ok("/a/")),
            ("//", Ok("/")),
            ("/a//.", Err(Reject::PathDotSegment)),
        ],
    );
    let keeping = PathRules {
        empty_segments: EmptySegments::Keep,
        ..STRICT
    };
    check(keeping, &[("//a///b", Ok("//a///b")), ("/a//", Ok("/a//"))]);
}

#[test]
fn escaped_separators_can_be_kept() {
    let rules = PathRules {
        encoded_slashes: RefuseOrKeep::Keep,
        backslashes: RefuseOrKeep::Keep,
        dot_segments: DotSegments::Resolve,
        ..STRICT
    };
    check(
        rules,
        &[
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%2f%2fb", Ok("/a%2F%2Fb")),
            ("/a\\b%5c", Ok("/a%5Cb%5C")),
            // Who decodes first sees dot segments here.
            ("/a%2f..%2fb", Err(Reject::PathDotSegment)),
            ("/a\\..\\b", Err(Reject::PathDotSegment)),
            ("/..%5cb", Err(Reject::PathDotSegment)),
        ],
    );
}

#[test]
fn parameters_can_be_refused() {
    let rules = PathRules {
        parameters: RefuseOrKeep::Refuse,
        ..STRICT
    };
    check(
        rules,
        &[
            ("/a;v=1", Err(Reject::PathParameter)),
            ("/a%3bv=1", Err(Reject::PathParameter)),
            ("/a?b;c", Ok("/a?b;c")),
        ],
    );
}

#[test]
fn the_limit_holds_at_the_edge() {
    let path = |bytes: usize| format!("/{}?q", "a".repeat(bytes - 3));
    assert_eq!(settled(&path(64), STRICT), Ok(path(64)));
    assert_eq!(settled(&path(65), STRICT), Err(Reject::UriTooLong));
}

prop_compose! {
    fn rules()(dots: bool, empty in 0..3, slash: bool, back: bool, parameter: bool) -> PathRules {
        let keep = |keep: bool| if keep { RefuseOrKeep::Keep } else { RefuseOrKeep::Refuse };
        PathRules {
            dot_segments: if dots { DotSegments::Resolve } else { DotSegments::Refuse },
            empty_segments: [EmptySegments::Refuse, EmptySegments::Merge, EmptySegments::Keep]
                [empty as usize],
            encoded_slashes: keep(slash),
            backslashes: keep(back),
            parameters: keep(parameter),
        }
    }
}

/// Decodes every escape once, as a server would.
fn decoded(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| parse_hex(&bytes[at + 1..at + 3]).unwrap());
        decoded.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    decoded
}

proptest! {
    #[test]
    fn a_settled_path_stays_and_hides_nothing(
        pieces in prop::collection::vec(
            prop::sample::select(&["a", "b", "/", ".", "%2e", "%2F", "\\", "%5c", ";", "%3b",
                "%41", "%c3%a9", "%C0%AE", "|", "%25", "2e", "*"][..]),
            0..12,
        ),
        rules in rules(),
    ) {
        let path = format!("/{}", pieces.concat());
        let Ok(Some(once)) = normal(&path, rules).map(|settled| Some(settled.unwrap_or(path)))
        else { return Ok(()) };
        prop_assert_eq!(normal(&once, rules), Ok(None), "{} is settled", &once);
        // Whatever a server decodes of it, no segment climbs.
        let decoded = decoded(&once);
        let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
        let climbs = |segment: &[u8]| segment == b".." || segment.starts_with(b"..;");
        prop_assert!(!segments.any(climbs), "{once}");
    }
}
