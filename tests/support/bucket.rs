//! A real S3 server (versitygw over a folder) behind a proxy that breaks the connection on demand.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use soak_operator::api::SoakRun;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Namespace, wait_for};

const BUCKET: &str = "soak";
/// What the server's users are known by; the tests look for the secret wherever it must not be.
pub const KEY: &str = "canary-access-key";
pub const SECRET: &str = "canary-secret-key-0123456789";

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// It is closed at once.
    Closed,
    /// It is answered with 503 Slow Down.
    Busy,
    /// It is cut in the middle of the request's body.
    Cut,
    /// Nothing is ever answered.
    Silent,
    /// Each connection begins a second later.
    Slow,
    /// Nothing more can be written: 507.
    Full,
}

/// The server, its folder and the proxy. All end with it.
pub struct Bucket {
    folder: PathBuf,
    port: u16,
    server: Mutex<Option<Child>>,
    pub endpoint: String,
    fault: watch::Sender<Fault>,
}

impl Bucket {
    /// Starts a server with an empty bucket.
    pub async fn start(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:08x}", fastrand::u32(..)));
        fs::create_dir_all(folder.join("data").join(BUCKET)).unwrap();
        fs::create_dir_all(folder.join("side")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (fault, faults) = watch::channel(Fault::None);
        tokio::spawn(proxy(listener, port, faults));
        let this = Self { folder, port, server: Mutex::new(None), endpoint, fault };
        this.serve().await;
        this
    }

    /// Starts the server, after a [`kill`](Self::kill).
    pub async fn serve(&self) {
        let program = env::var_os("SOAK_TEST_VERSITYGW").expect(
            "SOAK_TEST_VERSITYGW is not set: `cargo xtask test` builds the server, or `cargo xtask tool versitygw` tells its path",
        );
        let child = Command::new(program)
            .args(["--port", &format!("127.0.0.1:{}", self.port), "--access", KEY, "--secret", SECRET, "--quiet"])
            .arg("posix")
            .arg("--sidecar")
            .arg(self.folder.join("side"))
            .arg(self.folder.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.server.lock() = Some(child);
        wait_for("the S3 server", || async { TcpStream::connect(("127.0.0.1", self.port)).await.ok().map(drop) }).await;
    }

    /// Kills the server.
    pub fn kill(&self) {
        if let Some(mut child) = self.server.lock().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Breaks connections from now on.
    pub fn fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The Secret of that name with this server's credentials, and the right of the account `soak` to read it.
    pub async fn secret(&self, namespace: &Namespace, secret_key: &str) {
        namespace
            .apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"},
                "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": secret_key}}))
            .await;
        let rules =
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["bucket"], "verbs": ["get"]}]);
        namespace.allow("soak-store", rules).await;
    }

    /// What a spec says to use it.
    pub fn spec(&self) -> Value {
        json!({"url": "s3://soak/results", "endpoint": self.endpoint, "secretName": "bucket"})
    }

    /// The folder of an attempt of a run, as the server keeps it.
    pub fn attempt(&self, run: &SoakRun, attempt: u32) -> PathBuf {
        let metadata = &run.metadata;
        let parts = [&metadata.namespace, &metadata.name, &metadata.uid].map(|part| part.clone().unwrap());
        let results = self.folder.join("data").join(BUCKET).join("results");
        parts.iter().fold(results, |path, part| path.join(part)).join(format!("a{attempt}"))
    }

    /// The records of cycles that lie in the bucket, in order.
    pub fn cycles(&self, run: &SoakRun) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.attempt(run, 1).join("cycles"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
    }

    /// A JSON file of an attempt; none if it is not there.
    pub fn json(&self, run: &SoakRun, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.attempt(run, 1).join(name)).ok()?).ok()
    }

    /// Every byte in the bucket.
    pub fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path.clone(), fs::read(&path).unwrap()));
                }
            }
        }
        found
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

async fn proxy(listener: TcpListener, port: u16, faults: watch::Receiver<Fault>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut faults = faults.clone();
        tokio::spawn(async move {
            let now = *faults.borrow_and_update();
            // A connection that was kept open is broken as well, once anything changes.
            tokio::select! {
                _ = pass(client, port, now) => {}
                _ = faults.changed() => {}
            }
        });
    }
}

async fn pass(mut client: TcpStream, port: u16, fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Closed => return Ok(()),
        Fault::Silent => {
            let mut some = vec![0; 2_048];
            // The client gives up first.
            while client.read(&mut some).await? > 0 {}
            return Ok(());
        }
        Fault::Busy => {
            request(&mut client, 100).await?;
            return answer(&mut client, "503 Slow Down", "SlowDown").await;
        }
        Fault::Full => {
            let begun = request(&mut client, 100).await?;
            if begun.starts_with(b"PUT ") {
                return answer(&mut client, "507 Insufficient Storage", "XMinioStorageFull").await;
            }
            let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
            // One answer a connection, so that each request is looked at.
            let head = begun.windows(2).position(|window| window == b"\r\n").unwrap_or(0);
            server.write_all(&[&begun[..head], b"\r\nConnection: close", &begun[head..]].concat()).await?;
            return tokio::io::copy(&mut server, &mut client).await.map(drop);
        }
        Fault::None | Fault::Cut | Fault::Slow => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    match fault {
        Fault::Cut => {
            // The other half never arrives, and no answer does.
            let begun = request(&mut client, 50).await?;
            server.write_all(&begun).await?;
            server.flush().await
        }
        Fault::Slow => {
            let begun = request(&mut client, 0).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.write_all(&begun).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        _ => copy_bidirectional(&mut client, &mut server).await.map(drop),
    }
}

/// Reads the head of a request and so many percent of its body.
async fn request(client: &mut TcpStream, percent: usize) -> std::io::Result<Vec<u8>> {
    let mut begun = Vec::new();
    let mut some = vec![0; 2_048];
    loop {
        let count = client.read(&mut some).await?;
        begun.extend_from_slice(&some[..count]);
        let head = begun.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&begun[..head]).to_lowercase();
            let length: Option<usize> =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let wanted = head + length.unwrap_or(0) * percent / 100;
            if begun.len() >= wanted {
                if percent > 0 {
                    begun.truncate(wanted);
                }
                return Ok(begun);
            }
        }
        if count == 0 {
            return Ok(begun);
        }
    }
}

async fn answer(client: &mut TcpStream, status: &str, code: &str) -> std::io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>not now</Message></Error>");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all((head + &body).as_bytes()).await
}
