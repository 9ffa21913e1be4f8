//! A name server: answers A, AAAA and SRV over UDP and TCP from a table that tests change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;

/// A running name server. Ends when dropped.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: AbortHandle,
}

/// How questions are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// By what is known.
    #[default]
    Well,
    /// SERVFAIL.
    Failing,
    /// Not at all.
    Silent,
    /// Over UDP cut off before the first record (RFC 1035 section 4.1.1), over TCP well.
    Truncated,
}

/// What is known.
#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    ttl: u32,
    manner: Manner,
    /// When each question came, what it was about and how.
    questions: Vec<Question>,
}

/// A question that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) at: Instant,
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) tcp: bool,
}

impl Names {
    /// A server that knows nothing; what it will know is valid for `ttl` seconds.
    pub(crate) async fn start(ttl: u32) -> Self {
        let zone = Arc::new(Mutex::new(Zone {
            ttl,
            ..Zone::default()
        }));
        // The same port for both, and whoever has it for one may be taken by others for the other.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let (over_udp, over_tcp) = (
            serve(udp, Arc::clone(&zone)),
            listen(tcp, Arc::clone(&zone)),
        );
        let task = tokio::spawn(async { tokio::join!(over_udp, over_tcp) }).abort_handle();
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

    /// Answers in this manner from now on.
    pub(crate) fn set_manner(&self, manner: Manner) {
        self.zone.lock().unwrap().manner = manner;
    }

    /// Questions of this kind asked so far.
    pub(crate) fn questions(&self, name: &str, kind: RecordType) -> Vec<Question> {
        let zone = self.zone.lock().unwrap();
        let asked = zone.questions.iter();
        let asked = asked.filter(|one| one.name == name && one.kind == kind);
        asked.cloned().collect()
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
        let answer = answer(&buffer[..length], false, &mut zone.lock().unwrap());
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// Messages over TCP come after their length (RFC 1035 section 4.2.2).
async fn listen(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; usize::from(length)];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let answer = answer(&question, true, &mut zone.lock().unwrap());
                let Some(answer) = answer else { continue };
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                if stream
                    .write_all(&[&length[..], &answer].concat())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

fn answer(question: &[u8], tcp: bool, zone: &mut Zone) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let name = query.name().to_string();
    let name = name.trim_end_matches('.');
    zone.questions.push(Question {
        at: Instant::now(),
        name: name.to_owned(),
        kind: query.query_type(),
        tcp,
    });
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let known = zone.records.get(name);
    answer.metadata.response_code = match (zone.manner, known) {
        (Manner::Silent, _) => return None,
        (Manner::Failing, _) => ResponseCode::ServFail,
        (_, None) => ResponseCode::NXDomain,
        (_, Some(_)) => ResponseCode::NoError,
    };
    if zone.manner == Manner::Truncated && !tcp {
        answer.metadata.truncation = true;
        return Some(answer.to_vec().unwrap());
    }
    let fits = |record: &&RData| {
        matches!(
            (record, query.query_type()),
            (RData::A(_), RecordType::A)
                | (RData::AAAA(_), RecordType::AAAA)
                | (RData::SRV(_), RecordType::SRV)
        )
    };
    if zone.manner != Manner::Failing {
        let records = known.into_iter().flatten().filter(fits);
        let records = records
            .map(|record| Record::from_rdata(query.name().clone(), zone.ttl, record.clone()));
        answer.add_answers(records.collect::<Vec<_>>());
    }
    Some(answer.to_vec().unwrap())
}
