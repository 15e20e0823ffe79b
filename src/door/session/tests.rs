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

    /// Moves the bytes that are on their way to and from the client.
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

#[test]
fn what_is_sent_ahead_of_the_handshake_ends_it() {
    // A login in clear, one that looks like application data, and an alert in place of the first part of the handshake.
    let login = [&[23, 3, 3, 0, 6][..], b"2932\r\n"].concat();
    for bytes in [&b"2932\r\n"[..], &login, &[21, 3, 3, 0, 2, 2, 40]] {
        let mut connection = Connection::new(vec![1 << 20], 1 << 20);
        connection.pipe.borrow_mut().to_server.extend_from_slice(bytes);
        assert!(connection.server.shake().is_err(), "{}", bytes.escape_ascii());
    }
    // Data behind the first part of the handshake, which the server has answered already.
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.carry();
    assert!(!connection.server.shake().unwrap());
    connection.pipe.borrow_mut().to_server.extend_from_slice(&login);
    assert!(connection.server.shake().is_err());
}

#[test]
fn an_end_within_the_handshake_ends_it() {
    for cut in [0, 1, 5, 100] {
        let mut connection = Connection::new(vec![1 << 20], 1 << 20);
        connection.carry();
        let mut pipe = connection.pipe.borrow_mut();
        pipe.to_server.truncate(cut);
        pipe.has_ended = true;
        drop(pipe);
        assert!(connection.server.shake().is_err(), "{cut}");
    }
}

#[test]
fn nothing_counts_behind_the_closing_word() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.shake();
    connection.server.know_as(5);
    connection.client.writer().write_all(b"1|B\n").unwrap();
    connection.client.send_close_notify();
    connection.carry();
    // Whoever sits in between adds bytes.
    connection.pipe.borrow_mut().to_server.extend_from_slice(b"2|B\n");
    assert_eq!(connection.read(64), (b"1|B\n".to_vec(), None));
    assert_eq!(connection.read(64), (Vec::new(), None), "and it stays so");
    // The server may go on.
    assert_eq!(connection.server.write(b"bye").unwrap(), 3);
    connection.carry();
    assert_eq!(connection.received, b"bye");
}

#[test]
fn an_alert_of_the_other_side_ends_it() {
    let mut connection = Connection::new(vec![1 << 20], 1 << 20);
    connection.shake();
    connection.server.know_as(5);
    assert_eq!(connection.server.write(b"1|B\n").unwrap(), 4);
    let mut changed = std::mem::take(&mut connection.pipe.borrow_mut().to_client);
    *changed.last_mut().unwrap() ^= 1;
    connection.client.read_tls(&mut &changed[..]).unwrap();
    connection.client.process_new_packets().unwrap_err();
    connection.carry();
    assert_eq!(connection.read(64), (Vec::new(), Some(ErrorKind::InvalidData)));
}

/// A connection that this side opens, and the server at its other end.
fn opened(pieces: Vec<usize>) -> (Session<End>, rustls::ServerConnection, Rc<RefCell<Pipe>>, Wakes) {
    let (server, client) = configs();
    let pipe = Rc::new(RefCell::new(Pipe { pieces, room: 1 << 20, ..Pipe::default() }));
    let (wakes, name) = (Wakes::default(), ServerName::try_from("localhost").unwrap());
    let session = Session::to(End(Rc::clone(&pipe)), client, name, Rc::clone(&wakes)).unwrap();
    (session, rustls::ServerConnection::new(server).unwrap(), pipe, wakes)
}

#[test]
fn a_connection_that_this_side_opens_shakes_hands_while_it_is_read() {
    for pieces in [vec![1], vec![1 << 20], vec![3, 1000, 17]] {
        // Here the pipe's names are the wrong way round: this side is the client.
        let (mut session, mut server, pipe, wakes) = opened(pieces);
        session.know_as(5);
        wakes.take();
        let mut written = false;
        let mut got = Vec::new();
        for _ in 0..100_000 {
            match session.write(b"*|now\n") {
                Ok(len) if !written => {
                    assert_eq!(len, 6);
                    written = true;
                    assert!(!server.is_handshaking() || !session.connection.is_handshaking());
                    break;
                }
                Ok(_) => unreachable!(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert_eq!(session.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
            exchange(&mut server, &pipe, &mut got);
        }
        assert!(written, "the handshake does not end");
        assert!(wakes.take().contains(&(5, false)), "what waits to be written is told that it may");
        exchange(&mut server, &pipe, &mut got);
        assert_eq!(got, b"*|now\n");
        server.writer().write_all(b"+|epoch|1\n").unwrap();
        exchange(&mut server, &pipe, &mut got);
        let (mut answer, mut target) = (Vec::new(), [0; 64]);
        while answer.len() < 10 {
            if let Ok(len) = session.read(&mut target) {
                answer.extend_from_slice(&target[..len]);
            }
        }
        assert_eq!(answer, b"+|epoch|1\n");
    }
}

fn exchange(server: &mut rustls::ServerConnection, pipe: &Rc<RefCell<Pipe>>, got: &mut Vec<u8>) {
    let mut pipe = pipe.borrow_mut();
    let taken = std::mem::take(&mut pipe.to_client);
    let mut rest = &taken[..];
    while !rest.is_empty() {
        server.read_tls(&mut rest).unwrap();
        server.process_new_packets().unwrap();
    }
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = server.reader().read(&mut buffer) {
        got.extend_from_slice(&buffer[..len]);
    }
    while server.wants_write() {
        server.write_tls(&mut pipe.to_server).unwrap();
    }
}

#[test]
fn a_server_that_is_not_trusted_is_named_once_and_stays_so() {
    let (mut session, _, pipe, _) = opened(vec![1 << 20]);
    // A server with a certificate of its own.
    let mut stranger = rustls::ServerConnection::new(configs().0).unwrap();
    assert_eq!(session.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    exchange(&mut stranger, &pipe, &mut Vec::new());
    let failure = session.read(&mut [0; 64]).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::InvalidData);
    assert!(failure.to_string().contains("invalid peer certificate"), "{failure}");
    assert_eq!(session.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::InvalidData);
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
