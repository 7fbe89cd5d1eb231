//! The proxy's certificate, and the kubeconfig that leads the operator to it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

/// An authority of the proxies' own, and a certificate for loopback.
#[derive(Clone)]
pub struct Identity {
    authority: String,
    /// Accepts connections with that certificate.
    pub acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes both anew.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::from_params(&params, &key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .context("the proxy's certificate is not usable")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { authority: authority.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Writes a kubeconfig for a proxy. It has a token in place of rights: the proxy brings the administrator's.
    pub fn write_kubeconfig(&self, proxy: SocketAddr, file: &Path) -> Result<()> {
        let authority = BASE64_STANDARD.encode(&self.authority);
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": format!("https://{proxy}"), "certificate-authority-data": authority,
            }}],
            "users": [{"name": "operator", "user": {"token": "none"}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        });
        fs::write(file, text.to_string()).with_context(|| format!("{} can't be written", file.display()))
    }
}
