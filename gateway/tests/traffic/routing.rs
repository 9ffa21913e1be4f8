//! Requests reach the service their route names; others are refused.

use http::Request;
use http_body_util::Empty;

use crate::support::client;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

#[tokio::test]
async fn requests_reach_the_service_of_their_route() {
    let (users, orders) = (Origin::start("users").await, Origin::start("orders").await);
    let configuration = [
        service("users", &[users.address], ""),
        service("orders", &[orders.address], ""),
        route("users", "/users/{*rest}", "users", ""),
        route("orders", "/orders/{id}", "orders", ""),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    for (path, instance) in [("/users/7", "users"), ("/orders/7", "orders")] {
        let answer = client::get(gateway.address(), path).await;
        assert_eq!(answer.json()["instance"], instance, "{path}");
    }
    let answer = client::get(gateway.address(), "/payments").await;
    assert_eq!(answer.refusal(), (404, "route-not-found".to_owned()));
    let line = gateway.logged("/payments").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&404.into(), &"route-not-found".into())
    );
    assert!(line.get("route").is_none());
}

#[tokio::test]
async fn other_methods_are_told_which_are_allowed() {
    let origin = Origin::start("one").await;
    let routes =
        "[routes.read]\nmatch = { path = \"/a\", methods = [\"GET\"] }\nservice = \"app\"\n";
    let gateway = Gateway::start(&format!(
        "{}{routes}",
        service("app", &[origin.address], "")
    ))
    .await;
    let request = Request::delete("/a")
        .header("host", "test")
        .body(Empty::new())
        .unwrap();
    let answer = client::send(gateway.address(), request).await;
    assert_eq!(answer.refusal(), (405, "method-not-allowed".to_owned()));
    assert!(answer.header("allow").contains("GET"), "{answer:?}");
    for method in ["TRACE", "CONNECT"] {
        let request = format!("{method} /a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = client::raw(gateway.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_serves_requests_of_many_routes() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::in_front_of(&[origin.address]).await;
    let mut sender = client::connect(gateway.address()).await.unwrap();
    for round in 0..20 {
        let request = client::request(&format!("/{round}")).body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let answer = client::Answer::read(response).await.unwrap();
        assert_eq!(answer.json()["uri"], format!("/{round}"));
        sender.ready().await.unwrap();
    }
    assert_eq!(
        origin.connections(),
        1,
        "one client connection needs one to the instance"
    );
}
