//! A small HTTP server that can be told to lie.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: String,
    /// Where the bytes it wants begin.
    pub(super) from: Option<usize>,
}

/// Answers on a port of its own until the process ends.
pub(super) struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` is given each request, with its number from 0, and the connection.
    pub(super) fn new(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read(&stream) else { continue };
                let number = log.lock().unwrap().len();
                log.lock().unwrap().push(request.clone());
                answer(number, &request, &mut stream);
            }
        });
        Self { port, seen }
    }

    /// Serves `bytes` as an honest server does.
    pub(super) fn honest(bytes: Vec<u8>) -> Self {
        Self::new(move |_, request, stream| serve(&bytes, request, bytes.len(), stream))
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/cifar.tar.gz", self.port)
    }

    /// Where the bytes wanted by each request so far began.
    pub(super) fn seen(&self) -> Vec<Option<usize>> {
        self.seen.lock().unwrap().iter().map(|request| request.from).collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut from = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    Some(Request { path, from })
}

/// Sends a head and a body, and closes. A client that has gone is its own business.
pub(super) fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(body);
}

/// Sends what was asked for of `bytes`, but at most `cut` bytes of it.
pub(super) fn serve(bytes: &[u8], request: &Request, cut: usize, stream: &mut TcpStream) {
    let (from, all) = (request.from.unwrap_or(0), bytes.len());
    let mut head = String::from("200 OK");
    if request.from.is_some() {
        head = format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}", all - 1);
    }
    let body = &bytes[from..];
    send(stream, &format!("{head}\r\nContent-Length: {}", body.len()), &body[..cut.min(body.len())]);
}
