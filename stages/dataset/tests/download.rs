//! Honest, lying and failing servers, and archives that were fetched before.

use super::{
    archive::{archive, batch, gzip},
    server::{Server, send, serve},
    *,
};
use crate::dataset::{
    archive::hex,
    download::{PROGRESS, on_this_machine},
};

/// A small archive in the official layout, with more images in the test batch than in the others.
fn good() -> Vec<u8> {
    gzip(&archive(|name| batch(if name == "test_batch.bin" { 50 } else { 40 })))
}

/// Parameters under which `bytes` is the archive.
fn wants(bytes: &[u8], more: &str) -> String {
    let sha256 = hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    format!("source = 'cifar10'\nsha256 = '{sha256}'\nbytes = {}\n{more}", bytes.len())
}

fn from(server: &Server, bytes: &[u8], more: &str) -> String {
    wants(bytes, &format!("url = '{}'\nretries = 0\ntimeout = 5\n{more}", server.url()))
}

#[test]
fn an_honest_server_gives_the_images() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    bench.run(&from(&server, &bytes, "train_per_class = 3")).unwrap();
    let set = bench.packed();
    assert_eq!((set.len(Split::Train), set.len(Split::Test)), (30, 50));
    assert_eq!(set.classes()[9], "truck");
    assert_eq!(set.image(Split::Test, 3), &batch(4)[3 * 3073 + 1..]);
    assert_eq!(bench.described()["source"], "cifar10");
    assert_eq!(server.seen(), [None]);
}

#[test]
fn where_the_archive_comes_from_is_not_in_the_recipe() {
    let resolve = |text: &str| Dataset.resolve(&text.parse().unwrap()).unwrap();
    let plain = resolve("source = 'cifar10'");
    let other =
        resolve("source = 'cifar10'\nurl = 'http://x/y'\nmirrors = ['http://z']\narchive = 'a'\nretries = 9");
    assert_eq!(plain.recipe, other.recipe);
    let keys: Vec<_> = plain.recipe.keys().collect();
    assert_eq!(keys, ["bytes", "sha256", "source", "subset_seed"]);
    assert!(plain.recipe["sha256"].as_str().unwrap().starts_with("c4a38c50"));
}

#[test]
fn parameters_that_could_not_work_are_all_named() {
    let errors = refused(
        "source = 'cifar10'\nurl = 'ftp://x'\nmirrors = ['https://x', 'y']\nsha256 = 'C4'\nbytes = 0\ntimeout = 0",
    );
    let keys: Vec<_> = errors.into_iter().map(|error| error.key).collect();
    assert_eq!(keys, ["sha256", "bytes", "timeout", "url", "mirrors"]);
    // What is in an address is shown wherever that is.
    let told = refused(
        "source = 'cifar10'\nurl = 'https://me:secret@x/y'\nmirrors = ['http://me@x', 'http://x/@y?@#@']",
    );
    let keys: Vec<_> = told.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["url", "mirrors"]);
    let said = |error: &ParamError| format!("{}{}", error.message, error.hint.as_deref().unwrap_or_default());
    assert!(told.iter().all(|error| !said(error).contains("secret")));
}

#[test]
fn a_cut_download_resumes_where_it_was_cut() {
    let (bytes, mut bench) = (good(), Bench::new());
    let copy = bytes.clone();
    let server = Server::new(move |number, request, stream| {
        let cut = if number < 2 { 300 } else { copy.len() };
        serve(&copy, request, cut, stream);
    });
    bench.run(&from(&server, &bytes, "").replace("retries = 0", "retries = 2")).unwrap();
    assert_eq!(server.seen(), [None, Some(300), Some(600)]);
    let said = &bench.listener.said;
    assert!(
        said.iter().any(|line| line.contains("cut after 300 of") && line.contains("trying again in 0.5 s")),
        "{said:?}"
    );
}

#[test]
fn a_later_run_resumes_too_and_says_what_is_kept() {
    let (bytes, mut bench) = (good(), Bench::new());
    let copy = bytes.clone();
    let server = Server::new(move |number, request, stream| {
        serve(&copy, request, if number == 0 { 300 } else { copy.len() }, stream);
    });
    let params = from(&server, &bytes, "");
    let message = bench.fail(&params);
    assert!(message.contains(&format!("cut after 300 of {} bytes", bytes.len())), "{message}");
    bench.run(&params).unwrap();
    assert_eq!(server.seen(), [None, Some(300)]);
}

#[test]
fn a_server_that_cannot_resume_sends_everything_again() {
    let (bytes, mut bench) = (good(), Bench::new());
    let copy = bytes.clone();
    let server = Server::new(move |number, _, stream| {
        let head = format!("200 OK\r\nContent-Length: {}", copy.len());
        send(stream, &head, &copy[..if number == 0 { 300 } else { copy.len() }]);
    });
    let params = from(&server, &bytes, "");
    bench.fail(&params);
    bench.run(&params).unwrap();
    assert_eq!(server.seen(), [None, Some(300)]);
}

#[test]
fn a_server_that_resumes_elsewhere_or_refuses_to_is_asked_for_everything() {
    let bytes = good();
    let last = bytes.len() - 1;
    let wrong = format!("206 Partial Content\r\nContent-Range: bytes 0-{last}/{}", bytes.len());
    for head in [wrong, "416 Range Not Satisfiable\r\nContent-Length: 0".to_owned()] {
        let (copy, mut bench) = (bytes.clone(), Bench::new());
        let server = Server::new(move |_, request, stream| match request.from {
            Some(_) => send(stream, &head, &copy),
            None => serve(&copy, request, copy.len(), stream),
        });
        fs::write(bench.path("scratch/archive.part"), &bytes[..300]).unwrap();
        bench.run(&from(&server, &bytes, "").replace("retries = 0", "retries = 1")).unwrap();
        assert_eq!(server.seen(), [Some(300), None]);
    }
}

#[test]
fn more_bytes_than_the_archive_has_are_fetched_again_whatever_the_server_says_of_them() {
    let (bytes, mut bench) = (good(), Bench::new());
    let copy = bytes.clone();
    let (have, last, all) = (bytes.len() + 5, bytes.len() - 1, bytes.len());
    let range = format!("Content-Range: bytes {have}-{last}/{all}");
    let server = Server::new(move |_, request, stream| match request.from {
        Some(_) => send(stream, &format!("206 Partial Content\r\n{range}\r\nContent-Length: 0"), &[]),
        None => serve(&copy, request, copy.len(), stream),
    });
    fs::write(bench.path("scratch/archive.part"), [&bytes[..], b"other"].concat()).unwrap();
    bench.run(&from(&server, &bytes, "").replace("retries = 0", "retries = 1")).unwrap();
    assert_eq!(server.seen(), [Some(have), None]);
}

#[test]
fn bytes_that_were_there_before_are_no_progress() {
    let (bytes, mut bench) = (vec![7; 3 * PROGRESS as usize], Bench::new());
    let copy = bytes.clone();
    let server = Server::new(move |_, request, stream| match request.from {
        Some(_) => send(stream, "416 Range Not Satisfiable\r\nContent-Length: 0", &[]),
        None => serve(&copy, request, 2 * PROGRESS as usize, stream),
    });
    bench.fail(&from(&server, &bytes, "").replace("retries = 0", "retries = 2"));
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_beginning_that_does_not_fit_is_dropped() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    fs::write(bench.path("scratch/archive.part"), [0; 300]).unwrap();
    bench.run(&from(&server, &bytes, "").replace("retries = 0", "retries = 1")).unwrap();
    assert_eq!(server.seen(), [Some(300), None]);
}

/// The message and the integrity of a download from a server that always answers the same.
fn answered(head: &str, body: &[u8]) -> (String, bool, usize) {
    let (bytes, mut bench) = (good(), Bench::new());
    let (head, body) = (head.to_owned(), body.to_vec());
    let server = Server::new(move |_, _, stream| send(stream, &head, &body));
    let error = bench.run(&from(&server, &bytes, "").replace("retries = 0", "retries = 1")).unwrap_err();
    assert!(error.hint.unwrap().contains("mirrors"), "{}", error.message);
    (error.message, error.integrity, server.seen().len())
}

#[test]
fn lies_are_recognised_and_not_asked_for_again() {
    let bytes = good();
    let mut altered = bytes.clone();
    altered[200] ^= 1;
    let page = b"<html>please log in</html>";
    let length = |n: usize| format!("200 OK\r\nContent-Length: {n}");
    let longer = [bytes.as_slice(), b"more"].concat();
    for (head, body, says, integrity) in [
        ("200 OK\r\nContent-Type: text/html; charset=utf-8", page.as_slice(), "a web page instead", false),
        (&length(5), b"short", "announces 5 bytes instead of", false),
        ("200 OK", &longer, "sends more than the", false),
        ("404 Not Found", page, "answers 404 Not Found", false),
        (&length(bytes.len()), &altered, "sha256 differs", true),
        ("302 Found\r\nLocation: /again", b"", "redirects without end", false),
    ] {
        let (message, damaged, requests) = answered(head, body);
        assert!(message.contains(says), "{message}");
        assert_eq!(damaged, integrity, "{message}");
        assert!(requests == 1 || head.starts_with("302"), "{requests} requests: {message}");
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    for (head, body, says) in [
        ("503 Service Unavailable", b"".as_slice(), "answers 503 Service Unavailable"),
        ("200 OK", b"half", "cut after 4 of"),
    ] {
        let (message, damaged, requests) = answered(head, body);
        assert!(message.contains(says), "{message}");
        assert_eq!((damaged, requests), (false, 2), "{message}");
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let (bytes, mut bench) = (good(), Bench::new());
    let copy = bytes.clone();
    let server = Server::new(move |_, request, stream| {
        serve(&copy, request, 300, stream);
        std::mem::forget(stream.try_clone().unwrap()); // stays open
    });
    let message = bench.fail(&from(&server, &bytes, "").replace("timeout = 5", "timeout = 3"));
    assert!(message.contains("cut after 300 of"), "{message}");
}

#[test]
fn a_mirror_steps_in_and_nobody_there_is_said_of_each() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    let dead = "url = 'http://127.0.0.1:1/x'\nretries = 0";
    bench.run(&wants(&bytes, &format!("{dead}\nmirrors = ['{}']", server.url()))).unwrap();

    let message = Bench::new().fail(&wants(&bytes, &format!("{dead}\nmirrors = ['http://127.0.0.1:1/y']")));
    assert!(message.contains("127.0.0.1:1/x: ") && message.contains("127.0.0.1:1/y: "), "{message}");
}

#[test]
fn offline_asks_nobody_and_takes_an_archive_that_is_there() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    bench.offline = true;
    let message = bench.fail(&from(&server, &bytes, ""));
    assert!(message.contains("offline"), "{message}");
    assert!(server.seen().is_empty());

    fs::write(bench.path("fetched.tar.gz"), &bytes).unwrap();
    bench.run(&wants(&bytes, "archive = 'fetched.tar.gz'")).unwrap();
    assert_eq!(bench.packed().len(Split::Train), 200);
}

#[test]
fn an_archive_that_is_there_is_checked() {
    let (bytes, mut bench) = (good(), Bench::new());
    let params = wants(&bytes, "archive = 'fetched.tar.gz'");
    assert!(bench.fail(&params).contains("fetched.tar.gz"));
    // Who opens a pipe waits for somebody to write into it.
    let made = std::process::Command::new("mkfifo").arg(bench.path("fetched.tar.gz")).status();
    assert!(made.unwrap().success());
    assert!(bench.fail(&params).contains("not a plain file"));
    fs::remove_file(bench.path("fetched.tar.gz")).unwrap();
    fs::write(bench.path("fetched.tar.gz"), &bytes[1..]).unwrap();
    let message = bench.fail(&params);
    assert!(message.contains(&format!("it has {} bytes, not {}", bytes.len() - 1, bytes.len())), "{message}");
}

#[test]
fn an_interrupted_download_keeps_what_it_has() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    fs::write(bench.path("scratch/archive.part"), &bytes[..300]).unwrap();
    bench.listener.patience = Some(std::cell::Cell::new(0));
    assert!(bench.run(&from(&server, &bytes, "")).unwrap_err().interrupted);
    assert_eq!(fs::read(bench.path("scratch/archive.part")).unwrap(), bytes[..300]);
}

#[cfg(target_os = "linux")] // has `/dev/full`
#[test]
fn a_full_disk_is_named_with_a_way_out() {
    let (bytes, mut bench) = (good(), Bench::new());
    let server = Server::honest(bytes.clone());
    std::os::unix::fs::symlink("/dev/full", bench.path("scratch/archive.part")).unwrap();
    let error = bench.run(&from(&server, &bytes, "")).unwrap_err();
    assert!(
        error.message.contains("cannot write") && error.message.contains("archive.part"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("make room"));
}

#[test]
fn what_is_on_this_machine_is_asked_without_a_proxy() {
    for url in ["http://127.0.0.1:8000/x", "http://127.1.2.3", "https://localhost/x", "http://[::1]:8000/x"] {
        assert!(on_this_machine(url), "{url}");
    }
    for url in ["http://128.0.0.1/x", "https://localhost.example.org", "http://[2001:db8::1]/127.0.0.1", ""] {
        assert!(!on_this_machine(url), "{url}");
    }
}
