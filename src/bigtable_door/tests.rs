//! The door over real sockets: with tonic's client, and with a bare HTTP/2 one
//! for what no gRPC client does.

use std::net::SocketAddr;

use bytes::BufMut;
use cluster::DoorOptions;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use row_api::client::{RowClient, connect_lazy};
use row_api::data::bigtable_server::BigtableServer;
use row_api::data::{MutateRowRequest, MutateRowResponse, ReadRowsRequest, ReadRowsResponse};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};
use tonic::codegen::BoxStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use super::*;

/// What the service under test says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// One with a row key of so many bytes has come.
    Arrived(usize),
    /// One is done with, answered or not.
    Gone,
}

/// Says that a request has arrived, and keeps it until told to go on.
#[derive(Clone)]
struct Waiting {
    events: mpsc::UnboundedSender<Event>,
    go_on: Arc<Semaphore>,
}

/// Tells when it is dropped.
struct Held(mpsc::UnboundedSender<Event>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Gone);
    }
}

impl Waiting {
    fn arrived(&self, bytes: usize) -> Held {
        self.events.send(Event::Arrived(bytes)).unwrap();
        Held(self.events.clone())
    }
}

#[tonic::async_trait]
impl Bigtable for Waiting {
    async fn mutate_row(
        &self,
        request: Request<MutateRowRequest>,
    ) -> Result<Response<MutateRowResponse>, Status> {
        let _held = self.arrived(request.get_ref().row_key.len());
        self.go_on.acquire().await.unwrap().forget();
        Ok(Response::new(MutateRowResponse {}))
    }

    /// As many messages of a kilobyte as the request's limit says; then the stream waits for ever.
    async fn read_rows(
        &self,
        request: Request<ReadRowsRequest>,
    ) -> Result<Response<BoxStream<ReadRowsResponse>>, Status> {
        let held = self.arrived(0);
        let count = usize::try_from(request.get_ref().rows_limit).unwrap();
        let message = ReadRowsResponse { last_scanned_row_key: vec![1; 1000].into(), ..Default::default() };
        let rows = stream::repeat(message).take(count).chain(stream::pending());
        let rows = rows.map(move |message| {
            let _part_of_the_stream = &held;
            Ok(message)
        });
        Ok(Response::new(Box::pin(rows)))
    }
}

/// A door in front of [`Waiting`].
struct House {
    address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
    go_on: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
    shutdown: Shutdown,
}

impl House {
    async fn open(patience: Patience) -> Self {
        let options = DoorOptions {
            name: "test",
            address: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            connection_count_max: 16,
            refusal: b"",
        };
        let door = Door::open(options).await.unwrap();
        let (address, shutdown) = (door.local_address(), Shutdown::new());
        let (sender, events) = mpsc::unbounded_channel();
        let (go_on, in_flight) = (Arc::new(Semaphore::new(0)), Arc::new(InFlight::new(1 << 20)));
        let service = Waiting { events: sender, go_on: Arc::clone(&go_on) };
        let routes = Routes::new(BigtableServer::new(service.clone()));
        let serving = serve_within(door, service, routes, Arc::clone(&in_flight), patience, shutdown.clone());
        tokio::spawn(serving);
        Self { address, events, go_on, in_flight, shutdown }
    }

    fn client(&self) -> RowClient {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        RowClient::new(connect_lazy(&endpoint))
    }

    /// A bare connection whose streams' windows have so many bytes.
    async fn connection(&self, window_bytes: u32) -> h2::client::SendRequest<Bytes> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_window_size(window_bytes).handshake::<_, Bytes>(socket);
        let (client, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the service is there")
    }

    /// Everything has been given back.
    async fn close(self) {
        self.shutdown.begin();
        assert!(self.shutdown.drained(Duration::from_secs(10)).await);
        assert_eq!(self.in_flight.bytes(), 0);
    }
}

async fn call(client: &RowClient, bytes: usize) -> Result<(), Status> {
    client.data().mutate_row(write(bytes)).await.map(drop)
}

fn write(bytes: usize) -> MutateRowRequest {
    MutateRowRequest { row_key: vec![7; bytes].into(), ..MutateRowRequest::default() }
}

fn framed(message: &impl Message) -> Bytes {
    let mut framed = Vec::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut framed).unwrap();
    framed.into()
}

fn head(rpc: &str, timeout: Option<&str>) -> HttpRequest<()> {
    let path = format!("http://door/google.bigtable.v2.Bigtable/{rpc}");
    let mut head =
        HttpRequest::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(timeout) = timeout {
        head = head.header("grpc-timeout", timeout);
    }
    head.body(()).unwrap()
}

type Answering = h2::client::ResponseFuture;

async fn send(
    client: &h2::client::SendRequest<Bytes>,
    head: HttpRequest<()>,
    body: Bytes,
) -> (Answering, h2::SendStream<Bytes>) {
    let mut ready = client.clone().ready().await.unwrap();
    let (answer, mut stream) = ready.send_request(head, false).unwrap();
    stream.send_data(body, true).unwrap();
    (answer, stream)
}

fn code(headers: &HeaderMap) -> Code {
    Status::from_header_map(headers).expect("a status").code()
}

/// The bytes of an answer and its trailers.
async fn taken(answer: HttpResponse<h2::RecvStream>) -> Result<(usize, Option<HeaderMap>), h2::Error> {
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(data) = body.data().await {
        let data = data?;
        bytes += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((bytes, body.trailers().await?))
}

#[tokio::test]
async fn requests_past_the_bound_are_refused_until_others_end() {
    let mut house = House::open(Patience::default()).await;
    // Two calls on connections of their own hold most of the room.
    let held: Vec<_> = [house.client(), house.client()]
        .into_iter()
        .map(|client| tokio::spawn(async move { call(&client, 450_000).await }))
        .collect();
    assert_eq!(
        (house.event().await, house.event().await),
        (Event::Arrived(450_000), Event::Arrived(450_000))
    );
    assert!(house.in_flight.bytes() > 900_000);

    let third = house.client();
    let hostile: Vec<_> = (0..20)
        .map(|_| {
            let client = third.clone();
            tokio::spawn(async move { call(&client, 200_000).await })
        })
        .collect();
    for refused in hostile {
        let status = refused.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("bigtable.in_flight_max (1.0 MiB)"), "{status}");
    }

    house.go_on.add_permits(3);
    for held in held {
        held.await.unwrap().unwrap();
    }
    call(&third, 200_000).await.unwrap();

    // Alone and still too large, as many times as it comes.
    for _ in 0..20 {
        let status = call(&third, 8 << 20).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    drop(third);
    house.close().await;
}

#[tokio::test]
async fn a_call_that_waits_past_its_deadline_is_dropped_and_answered() {
    let mut house = House::open(Patience::default()).await;
    let client = house.connection(1 << 16).await;
    let (answer, _stream) = send(&client, head("MutateRow", Some("30m")), framed(&write(9))).await;
    assert_eq!(house.event().await, Event::Arrived(9));
    let answer = answer.await.unwrap();
    assert_eq!(code(answer.headers()), Code::DeadlineExceeded);
    assert_eq!(house.event().await, Event::Gone);
    // One that is past its deadline when it comes is not begun.
    let (answer, _stream) = send(&client, head("MutateRow", Some("0n")), framed(&write(9))).await;
    assert_eq!(code(answer.await.unwrap().headers()), Code::DeadlineExceeded);
    assert!(house.events.try_recv().is_err());
    let (answer, _stream) = send(&client, head("MutateRow", Some("soon")), framed(&write(9))).await;
    assert_eq!(code(answer.await.unwrap().headers()), Code::Internal);
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn a_scan_ends_at_its_deadline_with_what_it_gave_and_trailers() {
    let mut house = House::open(Patience::default()).await;
    let client = house.connection(1 << 20).await;
    let read = framed(&ReadRowsRequest { rows_limit: 3, ..Default::default() });
    let (answer, _stream) = send(&client, head("ReadRows", Some("50m")), read).await;
    assert_eq!(house.event().await, Event::Arrived(0));
    let (bytes, trailers) = taken(answer.await.unwrap()).await.unwrap();
    assert!(bytes > 3000, "{bytes}");
    assert_eq!(code(&trailers.expect("trailers")), Code::DeadlineExceeded);
    assert_eq!(house.event().await, Event::Gone);
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_calls() {
    let mut house = House::open(Patience::default()).await;
    let client = house.connection(1 << 20).await;
    let read = || framed(&ReadRowsRequest { rows_limit: 3, ..Default::default() });
    for (rpc, body) in [("MutateRow", framed(&write(0))), ("ReadRows", read())] {
        let (answer, mut stream) = send(&client, head(rpc, None), body).await;
        assert_eq!(house.event().await, Event::Arrived(0), "{rpc}");
        stream.send_reset(h2::Reason::CANCEL);
        assert_eq!(house.event().await, Event::Gone, "{rpc}");
        drop(answer);
    }
    let (_answer, _stream) = send(&client, head("ReadRows", None), read()).await;
    assert_eq!(house.event().await, Event::Arrived(0));
    let whole_connection = (client, _answer, _stream);
    drop(whole_connection);
    assert_eq!(house.event().await, Event::Gone);
    house.close().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_its_call() {
    let patience = Patience { body: Duration::from_millis(30), ..Patience::default() };
    let mut house = House::open(patience).await;
    let client = house.connection(1 << 16).await;
    let message = framed(&write(500));
    for sent in [0, 100] {
        // PingAndWarm is tonic's to serve, and nothing is kept of it either.
        for rpc in ["MutateRow", "PingAndWarm"] {
            let mut ready = client.clone().ready().await.unwrap();
            let (answer, mut stream) = ready.send_request(head(rpc, None), false).unwrap();
            stream.send_data(message.slice(..sent), false).unwrap();
            let answer = answer.await.unwrap();
            let status = Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!(status.code(), Code::DeadlineExceeded, "{rpc}: {status}");
            assert!(status.message().contains(&format!("{sent} bytes of it came")), "{rpc}: {status}");
        }
    }
    assert!(house.events.try_recv().is_err(), "no call began");
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let patience = Patience { answer: Duration::from_millis(30), ..Patience::default() };
    let mut house = House::open(patience).await;
    let client = house.connection(5000).await;
    let read = framed(&ReadRowsRequest { rows_limit: i64::MAX, ..Default::default() });
    let (answer, _stream) = send(&client, head("ReadRows", None), read.clone()).await;
    assert_eq!(house.event().await, Event::Arrived(0));
    let answer = answer.await.unwrap();
    assert_eq!(house.event().await, Event::Gone);
    let error = taken(answer).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");

    // A deadline holds though nobody takes anything.
    let mut house_of_patience = House::open(Patience::default()).await;
    let client = house_of_patience.connection(5000).await;
    let (_answer, _stream) = send(&client, head("ReadRows", Some("30m")), read).await;
    assert_eq!(house_of_patience.event().await, Event::Arrived(0));
    assert_eq!(house_of_patience.event().await, Event::Gone);
    drop(client);
    house_of_patience.close().await;
    house.close().await;
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_its_answer() {
    let mut house = House::open(Patience::default()).await;
    let client = house.connection(1000).await;
    let read = framed(&ReadRowsRequest { rows_limit: 300, ..Default::default() });
    let (answer, _stream) = send(&client, head("ReadRows", Some("300m")), read).await;
    assert_eq!(house.event().await, Event::Arrived(0));
    let (bytes, trailers) = taken(answer.await.unwrap()).await.unwrap();
    assert!(bytes > 300_000, "{bytes}");
    assert_eq!(code(&trailers.expect("trailers")), Code::DeadlineExceeded);
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn a_peer_that_takes_back_its_calls_at_once_is_let_go() {
    let house = House::open(Patience::default()).await;
    let client = house.connection(1 << 16).await;
    let error = loop {
        let mut ready = match client.clone().ready().await {
            Ok(ready) => ready,
            Err(error) => break error,
        };
        // Many of them at once, as they come in one segment.
        let mut burst = || -> Result<(), h2::Error> {
            for _ in 0..100 {
                let (_answer, mut stream) = ready.send_request(head("MutateRow", None), false)?;
                stream.send_reset(h2::Reason::CANCEL);
            }
            Ok(())
        };
        if let Err(error) = burst() {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    house.close().await;
}

#[tokio::test]
async fn headers_past_the_bound_fail_their_call_alone() {
    let mut house = House::open(Patience::default()).await;
    let client = house.connection(1 << 16).await;
    let mut huge = head("MutateRow", None);
    huge.headers_mut().insert("x-large", vec![b'x'; HEADERS_BYTES_MAX as usize].try_into().unwrap());
    let mut ready = client.clone().ready().await.unwrap();
    let (answer, _stream) = ready.send_request(huge, true).unwrap();
    let refused = answer.await.map(|answer| answer.status());
    assert!(refused.as_ref().is_ok_and(|status| status.as_u16() == 431), "{refused:?}");
    house.go_on.add_permits(1);
    let (answer, _stream) = send(&client, head("MutateRow", None), framed(&write(1))).await;
    assert_eq!(house.event().await, Event::Arrived(1));
    assert_eq!(taken(answer.await.unwrap()).await.unwrap().1.map(|trailers| code(&trailers)), Some(Code::Ok));
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn a_peer_that_does_not_begin_is_let_go() {
    let patience = Patience { preface: Duration::from_millis(30), ..Patience::default() };
    let house = House::open(patience).await;
    for spoken in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut socket = TcpStream::connect(house.address).await.unwrap();
        socket.write_all(spoken).await.unwrap();
        let mut told = Vec::new();
        socket.read_to_end(&mut told).await.unwrap();
        assert!(told.is_empty());
    }
    house.close().await;
}
