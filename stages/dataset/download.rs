//! Source `cifar10`: the official binary archive, downloaded or already there. The only file of the
//! program that uses the network.
//!
//! What arrived is kept in the scratch folder, so that the next attempt, of this run or a later one,
//! asks only for the rest. Whether the pieces fit is not asked of the server (it may lie, and a mirror
//! may have the rest): the SHA-256 of the whole decides.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use engine::kind::{Job, ParamError, Progress, StageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Proxy,
    http::{HeaderMap, StatusCode, Uri, header},
    tls::{RootCerts, TlsConfig},
};

use super::{Collected, archive, cifar, subset::Subset};
use crate::output::failed;

const URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
/// That of the official archive.
pub const SHA256: &str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
const BYTES: u64 = 170_052_171;
/// An attempt that brought so much that never came before is no failed one.
pub(super) const PROGRESS: u64 = 1 << 16;
const MB: u64 = 1_000_000;

/// Parameters that only say how the archive gets here: `sha256` says what it is.
pub(super) const SETTINGS: [&str; 5] = ["archive", "mirrors", "retries", "timeout", "url"];

/// Parameters of the official archive.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct DownloadParams {
    /// Where the archive is.
    #[serde(default = "url")]
    url: String,
    /// Where else, tried in order.
    #[serde(default)]
    mirrors: Vec<String>,
    /// The archive, where it is already on this machine; a relative path begins at the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<PathBuf>,
    /// How often to try again after an attempt that failed, for each url.
    #[serde(default = "retries")]
    retries: u32,
    /// Seconds without an answer or a byte after which a connection is given up.
    #[serde(default = "timeout")]
    timeout: u32,
    /// SHA-256 of the archive.
    #[serde(default = "sha256")]
    sha256: String,
    /// Size of the archive.
    #[serde(default = "bytes")]
    bytes: u64,
    #[serde(flatten)]
    subset: Subset,
}

fn url() -> String {
    URL.into()
}

fn retries() -> u32 {
    4
}

fn timeout() -> u32 {
    60
}

fn sha256() -> String {
    SHA256.into()
}

fn bytes() -> u64 {
    BYTES
}

impl DownloadParams {
    /// Everything that the types let through and that could not work.
    pub(super) fn faults(&self) -> Vec<ParamError> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String, hint: &str| {
            faults.push(ParamError { key: key.into(), message, hint: Some(hint.into()) });
        };
        let sha256 = &self.sha256;
        if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            fault("sha256", format!("`{sha256}` is no SHA-256"), "write 64 digits: 0 to 9 and a to f");
        }
        for (key, number) in [("bytes", self.bytes), ("timeout", self.timeout.into())] {
            if number == 0 {
                fault(key, format!("`{key} = 0` does not work"), "choose at least 1");
            }
        }
        let mirrors = self.mirrors.iter().map(|url| ("mirrors", url));
        for (key, url) in [("url", &self.url)].into_iter().chain(mirrors) {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                fault(
                    key,
                    format!("`{url}` is no address"),
                    "write `https://...`; for a file, set `archive`",
                );
            } else if authority(url).contains('@') {
                let hint = "records, logs and reports show addresses: leave out what stands before the `@`; or fetch \
                            the file by other means and set `archive`";
                fault(key, "an address must have no user name and no password in it".into(), hint);
            }
        }
        faults
    }
}

/// What of an address says who asks whom.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

/// Fetches, checks and reads the archive.
pub(super) fn collect(params: &DownloadParams, job: &mut Job<'_>) -> Result<Collected, StageError> {
    let path = if let Some(archive) = &params.archive {
        let path = job.project.join(archive);
        let wrong = verify(&path, params).map_err(|error| failed("read", &path, &error))?;
        if let Some(reason) = wrong {
            return Err(StageError::new(format!("`{}` is not the archive: {reason}", path.display()))
                .hint(
                    "download it again, or leave `archive` out; for another archive set `sha256` and `bytes`",
                )
                .integrity());
        }
        path
    } else {
        Fetch { params, part: job.scratch.join("archive.part"), job }.run()?
    };
    let batches = archive::read(&path, params.sha256 == SHA256)?;
    cifar::images(&batches, &params.subset)
}

/// What is wrong with the file at `path`, if anything.
fn verify(path: &Path, params: &DownloadParams) -> io::Result<Option<String>> {
    let length = engine::place::plain(path)?.len();
    let mut file = File::open(path)?;
    if length != params.bytes {
        return Ok(Some(format!("it has {length} bytes, not {}", params.bytes)));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let got = archive::hex(&hasher.finalize());
    let wanted = &params.sha256;
    Ok((got != *wanted).then(|| format!("its sha256 differs\n  expected {wanted}\n  got      {got}")))
}

/// Why an attempt ended.
enum Trouble {
    /// Nothing that a server could change.
    Here(StageError),
    /// May be gone the next time.
    Passing(String),
    /// This server will do no better.
    Lasting(String),
    /// It delivered other bytes than those asked for.
    Different(String),
}

struct Fetch<'a, 'b> {
    params: &'a DownloadParams,
    /// What has arrived.
    part: PathBuf,
    job: &'a mut Job<'b>,
}

impl Fetch<'_, '_> {
    fn run(mut self) -> Result<PathBuf, StageError> {
        if self.have() == self.params.bytes && self.whole().is_ok() {
            return Ok(self.part);
        }
        if self.job.offline {
            return Err(StageError::new(format!("{} is needed, and this run is offline", self.params.url))
                .hint("run without `--offline`, or fetch that file on another machine and set `archive = \"PATH\"`"));
        }
        let (mut reasons, mut different) = (String::new(), false);
        for url in std::iter::once(&self.params.url).chain(&self.params.mirrors) {
            self.job.reporter.say(&format!("downloading {url}"));
            let reason = match self.from(url) {
                Ok(()) => return Ok(self.part),
                Err(Trouble::Here(error)) => return Err(error),
                Err(Trouble::Passing(reason) | Trouble::Lasting(reason)) => reason,
                Err(Trouble::Different(reason)) => {
                    different = true;
                    reason
                }
            };
            self.job.reporter.say(&reason);
            reasons.push_str(&format!("\n  {url}: {reason}"));
        }
        let error = StageError::new(format!("cannot download the archive{reasons}"));
        if different {
            return Err(error.integrity().hint(
                "the file on the server changed, or something on the way alters it: name another server in \
                 `mirrors`, or set `archive` to a file that you trust",
            ));
        }
        let kept = match self.have() / MB {
            0 => String::new(),
            kept => format!(" ({kept} MB have arrived and will not be fetched again)"),
        };
        Err(error.hint(format!(
            "run again later{kept}, name another server in `mirrors`, or fetch the file by other means and set \
             `archive = \"PATH\"`"
        )))
    }

    /// Bytes that have arrived.
    fn have(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |meta| meta.len())
    }

    fn here(&self, action: &str, error: &io::Error) -> Trouble {
        Trouble::Here(failed(action, &self.part, error))
    }

    fn start_over(&self) -> Result<(), Trouble> {
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.here("delete", &error)),
            _ => Ok(()),
        }
    }

    /// Is what arrived the archive?
    fn whole(&self) -> Result<(), Trouble> {
        match verify(&self.part, self.params) {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => {
                self.start_over()?;
                Err(Trouble::Different(format!("what arrived is not the archive: {reason}")))
            }
            Err(error) => Err(self.here("read", &error)),
        }
    }

    /// The whole archive from `url`, in as many attempts as it takes and is granted.
    fn from(&mut self, url: &str) -> Result<(), Trouble> {
        let seconds = Duration::from_secs(self.params.timeout.into());
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_resolve(Some(seconds))
            .timeout_connect(Some(seconds))
            .timeout_recv_response(Some(seconds))
            .timeout_per_read(Some(seconds))
            .proxy(if on_this_machine(url) { None } else { Proxy::try_from_env() })
            .build()
            .into();
        let (mut failures, mut most) = (0, self.have());
        loop {
            let resumed = self.have() > 0;
            let trouble = match self.attempt(&agent, url).and_then(|()| self.whole()) {
                Err(trouble @ Trouble::Passing(_)) => trouble,
                // Perhaps only what was there before does not fit.
                Err(trouble @ Trouble::Different(_)) if resumed => trouble,
                other => return other,
            };
            // What is lost and comes again is no progress.
            failures = if self.have() >= most + PROGRESS { 1 } else { failures + 1 };
            most = most.max(self.have());
            if failures > self.params.retries {
                return Err(trouble);
            }
            let pause = Duration::from_millis(500) * (1 << (failures - 1).min(6));
            if let Trouble::Passing(reason) | Trouble::Different(reason) = trouble {
                self.job.reporter.say(&format!("{reason}; trying again in {} s", pause.as_secs_f32()));
            }
            self.pause(pause)?;
        }
    }

    fn pause(&self, pause: Duration) -> Result<(), Trouble> {
        const STEP: Duration = Duration::from_millis(100);
        for _ in 0..pause.as_millis() / STEP.as_millis() {
            self.stop_if_asked()?;
            thread::sleep(STEP);
        }
        Ok(())
    }

    fn stop_if_asked(&self) -> Result<(), Trouble> {
        if self.job.reporter.stop_requested() {
            Err(Trouble::Here(StageError::interrupted()))
        } else {
            Ok(())
        }
    }

    /// One request for what is missing.
    fn attempt(&mut self, agent: &Agent, url: &str) -> Result<(), Trouble> {
        self.stop_if_asked()?;
        let have = self.have();
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(trouble)?;
        let start = match judge(response.status(), response.headers(), have, self.params.bytes) {
            Ok(start) => start,
            Err(trouble) => {
                if have > 0 && matches!(response.status().as_u16(), 206 | 416) {
                    self.start_over()?; // it does not resume as it should
                }
                return Err(trouble);
            }
        };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(start > 0)
            .truncate(start == 0)
            .open(&self.part);
        let mut file = file.map_err(|error| self.here("write", &error))?;
        let (mut done, total) = (start, self.params.bytes);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.stop_if_asked()?;
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(Trouble::Passing(cut(done, total, &format!(" ({error})")))),
            };
            if done + read as u64 > total {
                self.start_over()?;
                return Err(Trouble::Lasting(format!("sends more than the {total} bytes of the archive")));
            }
            file.write_all(&buffer[..read]).map_err(|error| self.here("write", &error))?;
            let before = done / MB;
            done += read as u64;
            if done / MB > before || done == total {
                let (done, total) = (done / MB, total / MB);
                self.job.reporter.progress(&Progress {
                    done,
                    total,
                    unit: "MB".into(),
                    readings: Vec::new(),
                });
            }
        }
        if done < total { Err(Trouble::Passing(cut(done, total, ""))) } else { Ok(()) }
    }
}

fn cut(done: u64, total: u64, why: &str) -> String {
    format!("the connection was cut after {done} of {total} bytes{why}")
}

/// Where in the archive the body of a response begins, if it can be what was asked for.
fn judge(status: StatusCode, headers: &HeaderMap, have: u64, total: u64) -> Result<u64, Trouble> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let answer = format!("the server answers {status}");
    let start = match status.as_u16() {
        200 => 0,
        206 => {
            let range = text(header::CONTENT_RANGE).unwrap_or("nothing");
            // More than there is may have arrived of what another `bytes` asked for.
            if have > total || range != format!("bytes {have}-{}/{total}", total - 1) {
                return Err(Trouble::Passing(format!(
                    "the server sends `{range}` for the bytes from {have}"
                )));
            }
            have
        }
        416 => return Err(Trouble::Passing(format!("{answer} to the bytes from {have}"))),
        408 | 429 | 500..=599 => return Err(Trouble::Passing(answer)),
        _ => return Err(Trouble::Lasting(answer)),
    };
    if text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/")) {
        return Err(Trouble::Lasting("the server sends a web page instead of the archive".into()));
    }
    match text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length != total - start => {
            Err(Trouble::Lasting(format!("the server announces {length} bytes instead of {}", total - start)))
        }
        _ => Ok(start),
    }
}

/// A proxy would look for it on its own.
pub(super) fn on_this_machine(url: &str) -> bool {
    let url = url.parse::<Uri>().unwrap_or_default();
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn trouble(error: ureq::Error) -> Trouble {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, RedirectFailed, Timeout, TooManyRedirects};
    match error {
        TooManyRedirects | RedirectFailed => Trouble::Lasting("the server redirects without end".into()),
        Io(_) | Timeout(_) | ConnectionFailed | HostNotFound => Trouble::Passing(error.to_string()),
        _ => Trouble::Lasting(error.to_string()),
    }
}
