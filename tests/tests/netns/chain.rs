//! The whole chain, client to balancer to gateway to service, with more than small requests.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use tests::client::{Client, Connection, inside};
use tests::demo::scenes;
use tests::demo::topology::{Family, World};
use tests::service::{PATTERN_BLOCK_BYTES, pattern_block};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Much more than any buffer on the way.
const DOWNLOAD_BLOCKS: u64 = 512;
const UPLOAD_BYTES: usize = 4 << 20;

#[test]
fn bodies_and_upgrades_pass_the_whole_chain_unchanged() {
    if !crate::balancer_granted() {
        return;
    }
    let world = World::build().unwrap();
    scenes::wait_for_first_answer(&world).unwrap();
    for family in Family::BOTH {
        let client = world.user(family, "alice").unwrap();
        inside(&world.client, || download(&client));
        inside(&world.client, || upload(&client));
        inside(&world.client, || talk(&client));
    }
}

async fn download(client: &Client) {
    let length = DOWNLOAD_BLOCKS * PATTERN_BLOCK_BYTES as u64;
    let mut connection = Connection::open(client).await.unwrap();
    let (status, mut body) = connection
        .stream(&format!("/users/bytes/{length}"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    let mut received = Vec::with_capacity(PATTERN_BLOCK_BYTES);
    let mut blocks = 0;
    while let Some(frame) = body.frame().await {
        received.extend_from_slice(&frame.unwrap().into_data().unwrap());
        while received.len() >= PATTERN_BLOCK_BYTES {
            let rest = received.split_off(PATTERN_BLOCK_BYTES);
            assert!(
                received == pattern_block(blocks),
                "block {blocks} came changed"
            );
            received = rest;
            blocks += 1;
        }
    }
    assert_eq!((blocks, received.len()), (DOWNLOAD_BLOCKS, 0));
}

async fn upload(client: &Client) {
    let body: Bytes = (0..UPLOAD_BYTES)
        .map(|number| (number % 251) as u8)
        .collect();
    let mut connection = Connection::open(client).await.unwrap();
    let reply = connection
        .send(Method::POST, "/users/echo", body.clone())
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    assert!(
        reply.body == body,
        "{} bytes came back changed",
        reply.body.len()
    );
}

async fn talk(client: &Client) {
    let mut connection = Connection::open(client).await.unwrap();
    let mut socket = connection.upgrade("/users/websocket").await.unwrap();
    for word in ["first", "second"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        let mut answer = vec![0; word.len()];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, word.as_bytes());
    }
}
