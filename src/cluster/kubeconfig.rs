//! Kubeconfigs out of Secrets: what is in one is a tenant's text, and must neither run nor read anything of the operator's.
//!
//! No message here holds a part of the text: it has tokens and keys.

use std::net::IpAddr;

use kube::{
    Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::request::is_local;

/// The largest kubeconfig that is read, in bytes.
const MAX_BYTES: usize = 262_144;

/// Why a kubeconfig can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKubeconfig(String);

/// Reads the current context of a kubeconfig.
///
/// Errors: it can't be read; it refers to a file or a program, which would be the operator's own; its server is an address
/// of the operator's own host or link, unless `local` allows that.
pub async fn read(text: &[u8], local: bool) -> Result<Config, BadKubeconfig> {
    let bad = |problem: &str| BadKubeconfig(problem.to_owned());
    if text.len() > MAX_BYTES {
        return Err(BadKubeconfig(format!("it has more than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(text).map_err(|_| bad("it is no UTF-8 text"))?;
    let config = Kubeconfig::from_yaml(text).map_err(|_| bad("it is no kubeconfig in YAML"))?;
    if let Some(problem) = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()).find_map(foreign) {
        return Err(BadKubeconfig(format!("{problem}: give the credentials themselves, as token or *-data")));
    }
    for cluster in config.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.certificate_authority.is_some() {
            return Err(bad("its cluster names a file (certificate-authority): give certificate-authority-data"));
        }
        if cluster.proxy_url.is_some() {
            return Err(bad("its cluster has a proxy-url, which is not supported"));
        }
    }
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|error| bad(words(&error)))?;
    if !local {
        not_local(&config).await?;
    }
    Ok(config)
}

/// What a user entry refers to outside of itself.
fn foreign(user: &AuthInfo) -> Option<&'static str> {
    if user.exec.is_some() {
        Some("its user runs a program (exec)")
    } else if user.auth_provider.is_some() {
        Some("its user needs an auth-provider")
    } else if user.token_file.is_some() {
        Some("its user names a file (tokenFile)")
    } else if user.client_certificate.is_some() || user.client_key.is_some() {
        Some("its user names a file (client-certificate, client-key)")
    } else {
        None
    }
}

/// The client's own errors may quote what they could not read.
const fn words(error: &KubeconfigError) -> &'static str {
    match error {
        KubeconfigError::CurrentContextNotSet => "it has no current-context",
        KubeconfigError::LoadContext(_) => "its current-context is not among its contexts",
        KubeconfigError::LoadClusterOfContext(_) => "the cluster of its current context is not among its clusters",
        KubeconfigError::MissingClusterUrl => "its cluster has no server",
        KubeconfigError::ParseClusterUrl(_) => "its cluster's server is no URL",
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            "its certificate-authority-data can't be read"
        }
        KubeconfigError::LoadClientCertificate(_) => "its client-certificate-data can't be read",
        KubeconfigError::LoadClientKey(_) => "its client-key-data can't be read",
        _ => "its current context can't be used",
    }
}

async fn not_local(config: &Config) -> Result<(), BadKubeconfig> {
    let host = config.cluster_url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        // A name that can't be resolved now can't be connected to either, and is told by that.
        Err(_) => tokio::net::lookup_host((host.as_str(), 0))
            .await
            .map(|all| all.map(|address| address.ip()).collect())
            .unwrap_or_default(),
    };
    if addresses.into_iter().any(is_local) {
        return Err(BadKubeconfig("its server is an address of the operator's own host or link".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for every secret: it must not come back in a message.
    const CANARY: &str = "canary-5f3a";

    fn kubeconfig(server: &str, cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: '{server}'{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    }

    #[tokio::test]
    async fn credentials_in_the_text_are_taken() {
        let config = read(kubeconfig("https://192.0.2.7:6443", "", "token: abc").as_bytes(), false).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("192.0.2.7"));
    }

    #[tokio::test]
    async fn nothing_of_the_operator_is_run_or_read_and_no_secret_comes_back() {
        let good = "https://192.0.2.7:6443";
        for (text, problem) in [
            (kubeconfig(good, "", &format!("exec: {{apiVersion: v1, command: '/bin/{CANARY}'}}")), "exec"),
            (kubeconfig(good, "", &format!("tokenFile: /var/run/{CANARY}")), "tokenFile"),
            (kubeconfig(good, "", &format!("client-certificate: /etc/{CANARY}")), "client-certificate"),
            (kubeconfig(good, "", &format!("auth-provider: {{name: '{CANARY}'}}")), "auth-provider"),
            (kubeconfig(good, ", certificate-authority: /etc/ca", ""), "certificate-authority"),
            (kubeconfig(good, ", proxy-url: 'http://192.0.2.9'", ""), "proxy-url"),
            (kubeconfig(good, &format!(", certificate-authority-data: '{CANARY}!'"), ""), "certificate-authority-data"),
            (kubeconfig("https://127.0.0.1:6443", "", &format!("token: {CANARY}")), "own host or link"),
            (kubeconfig("https://[::ffff:169.254.169.254]", "", &format!("token: {CANARY}")), "own host or link"),
            (format!("users: {CANARY}"), "no kubeconfig"),
            (
                format!("apiVersion: v1\nkind: Config\nusers: [{{name: u, user: {{token: {CANARY}}}}}]"),
                "current-context",
            ),
        ] {
            let message = read(text.as_bytes(), false).await.map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(problem), "{text}: {message}");
            assert!(!message.contains(CANARY), "{message}");
        }
    }
}
