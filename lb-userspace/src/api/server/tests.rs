//! Requests as a table; the socket as an operator meets it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn call(method: &str, path: &str, body: &str) -> Result<Call, (u16, String)> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    control_call(&method, path, body.as_bytes()).map_err(|p| (p.status, p.reason))
}

fn change(change: Change) -> Result<Call, (u16, String)> {
    Ok(Call::Change {
        vip: "web".into(),
        backend: "a".into(),
        change,
    })
}

#[test]
fn requests_become_calls() {
    let address = [10, 0, 0, 1].into();
    let backend = "/v1/vips/web/backends/a";
    assert_eq!(call("GET", "/v1/status", ""), Ok(Call::Status));
    assert_eq!(
        call("GET", "/v1/vips/we%62", ""),
        Ok(Call::Vip("web".into()))
    );
    assert_eq!(
        call("POST", backend, r#"{"address":"10.0.0.1"}"#),
        change(Change::Add {
            address,
            weight: None
        })
    );
    assert_eq!(call("DELETE", backend, ""), change(Change::Remove));
    let weight = format!("{backend}/weight");
    assert_eq!(
        call("PUT", &weight, r#"{"weight":65535}"#),
        change(Change::Weight(65535))
    );
    let drain = format!("{backend}/drain");
    assert_eq!(call("PUT", &drain, ""), change(Change::Drain(true)));
    assert_eq!(call("DELETE", &drain, ""), change(Change::Drain(false)));
    assert_eq!(call("POST", "/v1/detach", ""), Ok(Call::Detach));
}

#[test]
fn anything_else_is_refused_by_name() {
    let refused = |status: u16, reason: &str| Err((status, reason.to_owned()));
    let weight = "/v1/vips/web/backends/a/weight";
    for (method, path, body, expected) in [
        ("GET", "/", "", refused(404, "unknown-path")),
        ("GET", "/v2/status", "", refused(404, "unknown-path")),
        (
            "GET",
            "/v1/vips/web/backends",
            "",
            refused(404, "unknown-path"),
        ),
        ("GET", "/v1/status/", "", refused(404, "unknown-path")),
        ("DELETE", "/v1/status", "", refused(405, "wrong-method")),
        ("GET", weight, "", refused(405, "wrong-method")),
        ("PUT", weight, "", refused(400, "body-invalid")),
        (
            "PUT",
            weight,
            r#"{"weight":65536}"#,
            refused(400, "body-invalid"),
        ),
        (
            "PUT",
            weight,
            r#"{"weight":1,"drain":true}"#,
            refused(400, "body-invalid"),
        ),
    ] {
        assert_eq!(call(method, path, body), expected, "{method} {path} {body}");
    }
}

#[test]
fn percent_encoding_is_undone_where_it_is_valid() {
    for (encoded, expected) in [
        ("a%2Fb", "a/b"),
        ("%c3%a4", "ä"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%ff", "%ff"),
    ] {
        assert_eq!(decode(encoded), expected);
    }
}

#[tokio::test]
async fn the_socket_is_private_and_held_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/weir.sock");
    let first = ControlSocket::bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(
        ControlSocket::bind(&path),
        Err(BindError::InUse(_))
    ));
    drop(first);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_by_the_dead_is_replaced_and_other_files_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    ControlSocket::bind(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        ControlSocket::bind(&path),
        Err(BindError::NotSocket(_))
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// Sends raw bytes to a server whose agent answers every call with `{}`, and returns what comes back.
async fn exchange(request: Vec<u8>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (calls, mut asked) = mpsc::channel::<Asked>(1);
    tokio::spawn(async move {
        while let Some(asked) = asked.recv().await {
            let _ = asked.reply.send(Ok(b"{}".to_vec()));
        }
    });
    tokio::spawn(converse(server, calls, control_call));
    client.write_all(&request).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn bodies_are_bounded() {
    let request = |len: usize| {
        let head = format!(
            "POST /v1/reload HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n"
        );
        [head.into_bytes(), vec![b' '; len]].concat()
    };
    let response = exchange(request(BODY_BYTES_MAX)).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let response = exchange(request(BODY_BYTES_MAX + 1)).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("application/problem+json") && response.contains("body-too-large"));
}
