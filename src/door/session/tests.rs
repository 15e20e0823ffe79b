use super::*;
use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

/// What both ends share: the bytes under way in each direction.
#[derive(Debug, Default)]
struct Pipe {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The client has closed its side.
    has_ended: bool,
    /// Most bytes of a read or a write, in this order, over and over.
    pieces: Vec<usize>,
    operations: usize,
    /// Bytes that the client's side holds until they are taken.
    room: usize,
}

impl Pipe {
    fn piece(&mut self) -> usize {
        self.operations += 1;
        self.pieces[self.operations % self.pieces.len()]
    }
}

/// The server's end.
#[derive(Clone, Debug)]
struct End(Rc<RefCell<Pipe>>);

impl Read for End {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let len = pipe.piece().min(target.len()).min(pipe.to_server.len());
        if len == 0 {
            return if pipe.has_ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        target[..len].copy_from_slice(&pipe.to_server[..len]);
        pipe.to_server.drain(..len);
        Ok(len)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let room = pipe.room - pipe.to_client.len();
        let len = pipe.piece().min(bytes.len()).min(room);
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.to_client.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Connection {
    pipe: Rc<RefCell<Pipe>>,
    wakes: Wakes,
    server: Session<End>,
    client: ClientConnection,
    received: Vec<u8>,
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

impl Connection {
    fn new(pieces: Vec<usize>, room: usize) -> Connection {
        let (server, client) = configs();
        let pipe = Rc::new(RefCell::new(Pipe { pieces, room, ..Pipe::default() }));
        let wakes = Wakes::default();
        let server = Session::new(End(Rc::clone(&pipe)), server, Rc::clone(&wakes)).unwrap();
        let client = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        Connection { pipe, wakes, server, client, received: Vec::new() }
    }

    /// Moves what is under way to and from the client.
    fn carry(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        let taken = std::mem::take(&mut pipe.to_client);
        let mut rest = &taken[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets().unwrap();
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = self.client.reader().read(&mut buffer) {
                self.received.extend_from_slice(&buffer[..len]);
            }
        }
        while self.client.wants_write() {
            self.client.write_tls(&mut pipe.to_server).unwrap();
        }
    }

    /// Both sides, until the handshake is over at both.
    fn shake(&mut self) {
        for _ in 0..100_000 {
            self.carry();
            if self.server.shake().unwrap() && !self.client.is_handshaking() {
                return;
            }
        }
        panic!("the handshake does not end");
    }

    /// Everything that the server can read now, and how that ends.
    fn read(&mut self, most: usize) -> (Vec<u8>, Option<ErrorKind>) {
        let mut got = Vec::new();
        let mut target = vec![0; most];
        loop {
            match self.server.read(&mut target) {
                Ok(0) => return (got, None),
                Ok(len) => got.extend_from_slice(&target[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.wakes.take().is_empty() => {}
                Err(error) => return (got, Some(error.kind())),
            }
        }
    }
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_told_of() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.carry();
    assert!(!connection.server.shake().unwrap());
    // The client's last part of the handshake and its login come in one piece.
    let mut flight = std::mem::take(&mut connection.pipe.borrow_mut().to_client);
    connection.client.read_tls(&mut &flight[..]).unwrap();
    connection.client.process_new_packets().unwrap();
    connection.client.writer().write_all(b"2932\r\n").unwrap();
    flight.clear();
    connection.carry();
    assert!(connection.server.shake().unwrap());
    connection.server.know_as(5);
    assert_eq!(connection.wakes.take(), [(5, false)]);
    assert_eq!(connection.read(64), (b"2932\r\n".to_vec(), Some(ErrorKind::WouldBlock)));
}

#[test]
fn an_end_behind_a_short_read_is_told_of() {
    for with_a_word in [true, false] {
        let mut connection = Connection::new(vec![1 << 20], 1 << 20);
        connection.shake();
        connection.server.know_as(5);
        connection.wakes.take();
        connection.client.writer().write_all(b"1|B\n2|").unwrap();
        if with_a_word {
            connection.client.send_close_notify();
        }
        connection.carry();
        connection.pipe.borrow_mut().has_ended = !with_a_word;
        let mut target = [0; 64];
        assert_eq!(connection.server.read(&mut target).unwrap(), 6);
        assert_eq!(connection.wakes.take(), [(5, true)], "the net below has nothing more to tell");
        match with_a_word {
            true => assert_eq!(connection.server.read(&mut target).unwrap(), 0),
            false => {
                let cut = connection.server.read(&mut target).unwrap_err();
                assert_eq!(cut.kind(), ErrorKind::ConnectionAborted);
                let cut = connection.server.read(&mut target).unwrap_err();
                assert_eq!(cut.kind(), ErrorKind::ConnectionAborted, "and it stays so");
            }
        }
    }
}

#[test]
fn records_that_were_changed_on_their_way_end_it() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.shake();
    connection.server.know_as(5);
    connection.wakes.take();
    connection.client.writer().write_all(b"1|B\n").unwrap();
    connection.carry();
    *connection.pipe.borrow_mut().to_server.last_mut().unwrap() ^= 1;
    assert_eq!(connection.read(64), (Vec::new(), Some(ErrorKind::InvalidData)));
    assert!(!connection.pipe.borrow().to_client.is_empty(), "the other side is told");
}

#[test]
fn new_keys_change_nothing() {
    let mut connection = Connection::new(vec![7], 1 << 20);
    connection.shake();
    connection.server.know_as(5);
    for round in 0..5 {
        connection.client.refresh_traffic_keys().unwrap();
        connection.client.writer().write_all(b"abc").unwrap();
        connection.carry();
        assert_eq!(connection.read(64), (b"abc".to_vec(), Some(ErrorKind::WouldBlock)), "{round}");
        assert_eq!(connection.server.write(b"def").unwrap(), 3);
        connection.carry();
        assert_eq!(connection.received, b"def".repeat(round + 1));
    }
}

#[test]
fn a_record_in_many_pieces_does_not_keep_it_to_itself() {
    let mut connection = Connection::new(vec![1], 1 << 20);
    connection.shake();
    connection.server.know_as(5);
    connection.wakes.take();
    connection.client.writer().write_all(&[7; 1000]).unwrap();
    connection.carry();
    assert_eq!(connection.server.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(connection.wakes.take(), [(5, false)], "it wants to be read again");
    connection.server.wake(false);
    assert_eq!(connection.read(64), (vec![7; 1000], Some(ErrorKind::WouldBlock)));
}

#[test]
fn keys_that_change_without_end_end_it() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.shake();
    for _ in 0..1000 {
        connection.client.refresh_traffic_keys().unwrap();
    }
    connection.carry();
    assert_eq!(connection.read(64), (Vec::new(), Some(ErrorKind::InvalidData)));
}

#[test]
fn a_dropped_connection_ends_with_a_word() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.shake();
    assert_eq!(connection.server.write(b"bye").unwrap(), 3);
    let Connection { pipe, server, mut client, .. } = connection;
    drop(server);
    client.read_tls(&mut &pipe.borrow().to_client[..]).unwrap();
    client.process_new_packets().unwrap();
    let mut got = Vec::new();
    client.reader().read_to_end(&mut got).expect("an end in good order");
    assert_eq!(got, b"bye");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the bytes are cut, in the handshake and after it, they arrive as they are, each once.
    #[test]
    fn bytes_arrive_in_any_pieces(
        pieces in prop::collection::vec(1usize..5000, 1..8),
        room in 1usize..9000,
        parts in prop::collection::vec(1usize..40_000, 1..5),
        target in 1usize..20_000,
        byte_by_byte: bool,
    ) {
        let pieces = if byte_by_byte { vec![1] } else { pieces };
        let mut connection = Connection::new(pieces, room);
        connection.shake();
        connection.server.know_as(5);
        let mut sent = Vec::new();
        for (part, len) in parts.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31 + part) as u8).collect();
            // To the client: what is not reported as written is offered again, as the server does.
            let mut written = 0;
            while written < bytes.len() {
                match connection.server.write(&bytes[written..]) {
                    Ok(len) => {
                        prop_assert!(len > 0);
                        written += len;
                    }
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if written == bytes.len() {
                    // Nothing waits inside.
                    prop_assert!(!connection.server.connection.wants_write());
                }
                connection.carry();
            }
            sent.extend_from_slice(&bytes);
            prop_assert!(connection.received == sent);
            // To the server, which reads until there is nothing for now.
            let mut offered = &bytes[..];
            let mut got = Vec::new();
            while !offered.is_empty() {
                let len = connection.client.writer().write(offered).unwrap();
                offered = &offered[len..];
                connection.carry();
                let (read, end) = connection.read(target);
                prop_assert_eq!(end, Some(ErrorKind::WouldBlock));
                got.extend(read);
            }
            prop_assert!(got == bytes);
        }
    }
}
