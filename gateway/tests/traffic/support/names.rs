//! A name server: answers A, AAAA and SRV over UDP from a table that tests change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// A running name server. Ends when dropped.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: AbortHandle,
}

/// What is known.
#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    ttl: u32,
    /// Whether every question is answered SERVFAIL.
    fails: bool,
    questions: u64,
}

impl Names {
    /// A server that knows nothing; what it will know is valid for `ttl` seconds.
    pub(crate) async fn start(ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone {
            ttl,
            ..Zone::default()
        }));
        let task = tokio::spawn(serve(socket, Arc::clone(&zone))).abort_handle();
        Self {
            address,
            zone,
            task,
        }
    }

    /// The addresses of a name from now on.
    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr]) {
        let record = |address: &IpAddr| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        let records = addresses.iter().map(record).collect();
        self.zone
            .lock()
            .unwrap()
            .records
            .insert(name.to_owned(), records);
    }

    /// The services of a name from now on: priority, weight, port and host.
    pub(crate) fn set_services(&self, name: &str, services: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let host = Name::from_ascii(host).unwrap();
            RData::SRV(SRV::new(*priority, *weight, *port, host))
        };
        let records = services.iter().map(record).collect();
        self.zone
            .lock()
            .unwrap()
            .records
            .insert(name.to_owned(), records);
    }

    /// Forgets a name: it does not exist any more.
    pub(crate) fn forget(&self, name: &str) {
        self.zone.lock().unwrap().records.remove(name);
    }

    /// Whether questions are answered by a failure from now on.
    pub(crate) fn fail(&self, fails: bool) {
        self.zone.lock().unwrap().fails = fails;
    }

    /// Questions asked so far.
    pub(crate) fn questions(&self) -> u64 {
        self.zone.lock().unwrap().questions
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = answer(&buffer[..length], &mut zone.lock().unwrap());
        let _ = socket.send_to(&answer, from).await;
    }
}

fn answer(question: &[u8], zone: &mut Zone) -> Vec<u8> {
    zone.questions += 1;
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let name = query.name().to_string();
    let known = zone.records.get(name.trim_end_matches('.'));
    answer.metadata.response_code = match known {
        _ if zone.fails => ResponseCode::ServFail,
        None => ResponseCode::NXDomain,
        Some(_) => ResponseCode::NoError,
    };
    let fits = |record: &&RData| {
        matches!(
            (record, query.query_type()),
            (RData::A(_), RecordType::A)
                | (RData::AAAA(_), RecordType::AAAA)
                | (RData::SRV(_), RecordType::SRV)
        )
    };
    if !zone.fails {
        let records = known.into_iter().flatten().filter(fits);
        let records = records
            .map(|record| Record::from_rdata(query.name().clone(), zone.ttl, record.clone()));
        answer.add_answers(records.collect::<Vec<_>>());
    }
    answer.to_vec().unwrap()
}
