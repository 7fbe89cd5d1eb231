//! The cluster's API server as the administrator: what the proxy forwards to, and what workload and watcher talk to.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use http::Method;
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::Value;

const CALL_LIMIT: Duration = Duration::from_secs(20);

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
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Makes a call with a JSON body and reads a JSON answer; the first value is the status code.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.request(method, path).timeout(CALL_LIMIT);
        if let Some(body) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let response = request.send().await?;
        let code = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Creates or changes an object by server-side apply.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let response = self
            .request(Method::PATCH, &format!("{path}?fieldManager=faults&force=true"))
            .timeout(CALL_LIMIT)
            .header("content-type", "application/apply-patch+yaml")
            .body(object.to_string())
            .send()
            .await?;
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
    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_pieces() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"{\"a\"").is_empty());
        assert_eq!(lines.feed(b":1}\n{}\n{"), [b"{\"a\":1}\n".to_vec(), b"{}\n".to_vec()]);
        assert_eq!(lines.feed(b"}\n"), [b"{}\n".to_vec()]);
    }
}
