//! The cluster's API server as the administrator: what the proxy forwards to, and what workload and watcher talk to.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use http::Method;
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response};
use serde_json::Value;

const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long a connection is kept for the next call. The API server closes one that was idle for 90 s, as long as reqwest would
/// keep it, and a call that met the closing got no answer.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// A connection to the API server with the administrator's rights.
#[derive(Clone)]
pub struct Server {
    /// Its address.
    pub url: String,
    client: Client,
}

impl Server {
    /// Reads a kubeconfig that names files of a CA, a client certificate and a key.
    pub fn from_kubeconfig(file: &Path) -> Result<Self> {
        // A provider that is there already does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
        let config: Value = serde_yaml_ng::from_str(&text)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let read = |value: &Value| -> Result<Vec<u8>> {
            let path = value.as_str().context("the kubeconfig names no file of a certificate or key")?;
            fs::read(path).with_context(|| format!("{path} can't be read"))
        };
        let mut identity = read(&user["client-certificate"])?;
        identity.extend(read(&user["client-key"])?);
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(&read(&cluster["certificate-authority"])?)?])
            .identity(Identity::from_pem(&identity)?)
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(IDLE_LIMIT)
            .build()?;
        let url = cluster["server"].as_str().context("the kubeconfig names no server")?.to_owned();
        Ok(Self { url, client })
    }

    /// A server on loopback that needs no credentials, such as Toxiproxy.
    pub fn plain(url: &str) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build()?;
        Ok(Self { url: url.to_owned(), client })
    }

    /// Begins a request, which may have a path with a query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Makes a call with a JSON body and reads a JSON answer; the first value is the status code. Unless it is a POST, it is made once more
    /// if no answer comes.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let make = || {
            let request = self.request(method.clone(), path).timeout(CALL_LIMIT);
            match body {
                Some(body) => request.header("content-type", kind).body(body.to_string()),
                None => request,
            }
        };
        let response = if method == Method::POST { make().send().await? } else { twice(make).await? };
        let code = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Creates an object. If no answer comes it is tried once more; that the object is there is good enough then.
    ///
    /// Errors: no answer twice, or a refusal.
    pub async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let first = self.call(Method::POST, path, Some(object)).await;
        let again = first.is_err();
        let (code, answer) = match first {
            Ok(told) => told,
            Err(_) => self.call(Method::POST, path, Some(object)).await?,
        };
        if code == 201 || (again && code == 409) {
            return Ok(());
        }
        bail!("{path} did not take {object}: {code}: {answer}")
    }

    /// Creates or changes an object by server-side apply.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let make = || {
            self.request(Method::PATCH, &format!("{path}?fieldManager=faults&force=true"))
                .timeout(CALL_LIMIT)
                .header("content-type", "application/apply-patch+yaml")
                .body(object.to_string())
        };
        let response = twice(make).await?;
        let code = response.status();
        let bytes = response.bytes().await?;
        if !code.is_success() {
            bail!("{path} could not be applied: {code}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Reads an object; none if it is not there.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.call(Method::GET, path, None).await? {
            (200, object) => Ok(Some(object)),
            (404, _) => Ok(None),
            (code, answer) => bail!("{path} could not be read: {code}: {answer}"),
        }
    }

    /// Opens a watch; its body is a JSON object a line.
    pub async fn watch(&self, path: &str, version: &str) -> Result<Response> {
        let also = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{also}watch=true&allowWatchBookmarks=true&resourceVersion={version}");
        Ok(self.request(Method::GET, &path).send().await?)
    }
}

/// Sends a request, and once more if no answer comes.
async fn twice(make: impl Fn() -> RequestBuilder) -> reqwest::Result<Response> {
    match make().send().await {
        Ok(response) => Ok(response),
        Err(_) => make().send().await,
    }
}

/// Cuts a body that comes in pieces into lines.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds a piece; the answer is the lines that it completes, each with its line feed.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            lines.push(self.0.drain(..=end).collect());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers each connection as told: with a status code, or by closing it once the request was read.
    async fn serve(answers: Vec<Option<u16>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 4_096];
                assert!(connection.read(&mut request).await.unwrap() > 0, "a request came");
                let Some(code) = answer else { continue };
                let text = format!("HTTP/1.1 {code} Told\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
                connection.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Server::plain(&url).unwrap()
    }

    #[tokio::test]
    async fn what_got_no_answer_is_created_once_more() {
        let object = serde_json::json!({"metadata": {"name": "a"}});
        for (answers, good) in [
            (vec![Some(201)], true),
            (vec![None, Some(201)], true),
            // The first call had been carried out.
            (vec![None, Some(409)], true),
            (vec![Some(409)], false),
            (vec![None, Some(403)], false),
        ] {
            let server = serve(answers.clone()).await;
            assert_eq!(server.create("/things", &object).await.is_ok(), good, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn what_may_be_done_twice_is_called_once_more() {
        let server = serve(vec![None, Some(200), None, Some(200)]).await;
        assert!(server.get("/thing").await.unwrap().is_some());
        assert!(server.apply("/thing", &Value::Null).await.is_ok());
        let server = serve(vec![None, Some(201)]).await;
        assert!(server.call(Method::POST, "/things", None).await.is_err(), "a POST is not");
    }

    #[test]
    fn lines_come_out_whole_whatever_the_pieces() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"{\"a\"").is_empty());
        assert_eq!(lines.feed(b":1}\n{}\n{"), [b"{\"a\":1}\n".to_vec(), b"{}\n".to_vec()]);
        assert_eq!(lines.feed(b"}\n"), [b"{}\n".to_vec()]);
    }
}
