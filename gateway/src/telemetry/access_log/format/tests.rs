//! Lines against what they must look like, and against what clients put into them.

use http::header::{REFERER, USER_AGENT};
use http::{HeaderName, HeaderValue};

use super::super::field::{Captured, DEFAULT_FIELDS, Simple};
use super::*;

fn line<'a>() -> Line<'a> {
    Line {
        time: "2026-11-21T08:30:00.25Z".parse().unwrap(),
        request_id: b"abc",
        trace: None,
        client: [192, 0, 2, 7].into(),
        peer: "[2001:db8::1]:4711".parse().unwrap(),
        listener: "public",
        scheme: "https",
        subject: Some("partner-7"),
        method: "GET",
        host: "api.example.com",
        path: "/a\"b",
        route: Some("orders"),
        service: Some("orders"),
        instance: None,
        status: 404,
        reason: Some("route-not-found"),
        duration_us: 1_234_567,
        upstream_us: None,
        retries: 0,
        hedges: 0,
        bytes_in: 0,
        bytes_out: 5,
        protocol: "HTTP/1.1",
        tls: Some("TLSv1.3"),
        captured: None,
    }
}

fn defaults() -> Format {
    let fields = DEFAULT_FIELDS.map(|field| (field.name(), Field::Simple(field)));
    Format::json(fields, Vec::new())
}

fn written(format: &Format, line: &Line<'_>) -> String {
    let (mut out, clock) = (Vec::new(), Clock::default());
    format.write(&mut out, line, &clock, &mut Vec::new());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_is_one_json_object() {
    let expected = concat!(
        r#"{"time":"2026-11-21T08:30:00.250000Z","request_id":"abc","client":"192.0.2.7","#,
        r#""subject":"partner-7","#,
        r#""method":"GET","host":"api.example.com","path":"/a\"b","route":"orders","#,
        r#""service":"orders","status":404,"reason":"route-not-found","duration_us":1234567,"#,
        r#""retries":0,"bytes_in":0,"bytes_out":5,"protocol":"HTTP/1.1","tls":"TLSv1.3"}"#,
        "\n",
    );
    assert_eq!(written(&defaults(), &line()), expected);
}

#[test]
fn every_field_has_a_value_in_json_and_text() {
    let captured = Captured {
        query: Some("a=1&token=x".into()),
        ..Captured::default()
    };
    let line = Line {
        trace: Some((b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7")),
        instance: Some("10.0.0.1:80"),
        upstream_us: Some(999),
        captured: Some(&captured),
        ..line()
    };
    let table = [
        (Simple::TimeUnix, "1795249800.250"),
        (Simple::TimeCommon, "21/Nov/2026:08:30:00 +0000"),
        (Simple::TraceId, "4bf92f3577b34da6a3ce929d0e0e4736"),
        (Simple::SpanId, "00f067aa0ba902b7"),
        (Simple::Peer, "[2001:db8::1]:4711"),
        (Simple::Listener, "public"),
        (Simple::Scheme, "https"),
        (Simple::Instance, "10.0.0.1:80"),
        (Simple::Query, "a=1&token=***"),
        (Simple::DurationMs, "1234.567"),
        (Simple::DurationS, "1.234567"),
        (Simple::UpstreamUs, "999"),
        (Simple::UpstreamMs, "0.999"),
        (Simple::UpstreamS, "0.000999"),
        (Simple::Hedges, "0"),
    ];
    for (field, expected) in table {
        let name = field.name();
        assert_eq!(Field::parse(name), Ok(Field::Simple(field)));
        let redact = || vec!["token".into()];
        let text = Format::template(&format!("{{{name}}}"), redact()).unwrap();
        assert_eq!(written(&text, &line).trim_end(), expected);
        let json = Format::json([(name, Field::Simple(field))], redact());
        let json: serde_json::Value = serde_json::from_str(&written(&json, &line)).unwrap();
        let value = &json[name];
        // A number is read as one, so zeros at its end do not show.
        match value.as_str() {
            Some(text) => assert_eq!(text, expected, "{name}"),
            None => assert_eq!(value.as_f64(), expected.parse().ok(), "{name}"),
        }
    }
}

#[test]
fn the_presets_read_as_they_do_elsewhere() {
    let header = |name, value| (name, HeaderValue::from_static(value));
    let captured = Captured {
        query: Some("q=1".into()),
        request: vec![
            header(USER_AGENT, "curl/8"),
            header(REFERER, "https://a.example/?token=x"),
        ],
        response: Vec::new(),
    };
    let line = Line {
        path: "/a",
        captured: Some(&captured),
        ..line()
    };
    let start = r#"192.0.2.7 - partner-7 [21/Nov/2026:08:30:00 +0000] "GET /a?q=1 HTTP/1.1" 404 5"#;
    let end = r#" "https://a.example/?token=***" "curl/8""#;
    let expected = [format!("{start}\n"), format!("{start}{end}\n")];
    for ((_, preset), expected) in PRESETS.into_iter().zip(expected) {
        let format = Format::template(preset, vec!["token".into()]).unwrap();
        assert_eq!(written(&format, &line), expected);
    }
}

#[test]
fn hostile_values_stay_in_their_place() {
    let evil = "\" 200 0\n127.0.0.1 - - \"GET /admin";
    let value = HeaderValue::from_bytes(b"\x80\xff\" \tx").unwrap();
    let agent = HeaderName::from_static("user-agent");
    let captured = Captured {
        request: vec![(agent, value)],
        ..Captured::default()
    };
    let line = Line {
        subject: Some(evil),
        host: evil,
        path: evil,
        captured: Some(&captured),
        ..line()
    };
    let template = r#"{subject} "{host}" {path} "{request.user-agent}" {missing-}"#;
    assert!(Format::template(template, Vec::new()).is_err());
    let template = r#"{subject} "{host}" {path} "{request.user-agent}" {instance}"#;
    let text = written(&Format::template(template, Vec::new()).unwrap(), &line);
    assert_eq!(text.matches('\n').count(), 1);
    assert_eq!(text.matches('"').count(), 4);
    let subject = r"\x22\x20200\x200\x0a127.0.0.1\x20-\x20-\x20\x22GET\x20/admin ";
    assert!(text.starts_with(subject), "{text}");
    assert!(text.ends_with("\"\\x80\\xff\\x22 \\x09x\" -\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&written(&defaults(), &line)).unwrap();
    assert_eq!(json["path"], evil);
}

#[test]
fn a_template_that_cannot_be_read_says_why() {
    let table = [
        ("{client", BadTemplate::Unbalanced),
        ("client}", BadTemplate::Unbalanced),
        ("a\nb", BadTemplate::Control),
        (
            "{nobody}",
            BadTemplate::Field("nobody".into(), NoField::Unknown),
        ),
        ("{}", BadTemplate::Field(String::new(), NoField::Unknown)),
        (
            "{request.Cookie}",
            BadTemplate::Field("request.Cookie".into(), NoField::Secret),
        ),
    ];
    for (template, expected) in table {
        assert_eq!(Format::template(template, Vec::new()), Err(expected));
    }
    let braces = Format::template("{{{status}}}", Vec::new()).unwrap();
    assert_eq!(written(&braces, &line()), "{404}\n");
}
