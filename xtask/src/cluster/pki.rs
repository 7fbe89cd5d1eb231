//! Keys and certificates of a cluster, made once.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::layout::Layout;

/// A user of the API server by certificate: file, common name, organisation.
pub const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("kubelet-client", "kubelet-client", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// The name of the only node.
pub const NODE: &str = "soak-node";

/// Makes what is missing, and a kubeconfig for each user.
pub fn ensure(layout: &Layout) -> Result<()> {
    let folder = layout.path("pki");
    if !folder.join("done").exists() {
        fs::create_dir_all(&folder)?;
        make(layout, &folder)?;
        fs::write(folder.join("done"), "")?;
    }
    for (user, _, _) in USERS {
        kubeconfig(layout, user)?;
    }
    kubeconfig(layout, "kubelet")?;
    fs::copy(layout.path("admin.kubeconfig"), layout.kubeconfig())?;
    Ok(())
}

fn make(layout: &Layout, folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "soak-ca");
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    write(folder, "ca.crt", &ca.pem())?;
    let issuer = Issuer::from_params(&params, &ca_key);

    let addresses = ["127.0.0.1".to_owned(), layout.address(), layout.node_address(), layout.kubernetes_service()];
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let sans = addresses
        .iter()
        .map(|it| Ok(SanType::IpAddress(it.parse()?)))
        .chain(names.iter().map(|it| Ok(SanType::DnsName((*it).try_into()?))))
        .collect::<Result<Vec<_>>>()?;
    certificate(folder, "apiserver", "kube-apiserver", "", sans, &issuer)?;
    let node = vec![SanType::DnsName(NODE.try_into()?), SanType::IpAddress(layout.node_address().parse()?)];
    certificate(folder, "kubelet", &format!("system:node:{NODE}"), "system:nodes", node, &issuer)?;
    for (file, name, organisation) in USERS {
        certificate(folder, file, name, organisation, Vec::new(), &issuer)?;
    }
    // Tokens of service accounts; kube-apiserver wants the public half apart.
    let tokens = KeyPair::generate()?;
    write(folder, "sa.key", &tokens.serialize_pem())?;
    write(folder, "sa.pub", &tokens.public_key_pem())
}

fn certificate(
    folder: &Path,
    file: &str,
    name: &str,
    organisation: &str,
    sans: Vec<SanType>,
    issuer: &Issuer<'_, &KeyPair>,
) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if !organisation.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params.subject_alt_names = sans;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate()?;
    write(folder, &format!("{file}.crt"), &params.signed_by(&key, issuer)?.pem())?;
    write(folder, &format!("{file}.key"), &key.serialize_pem())
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(folder.join(file))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

fn kubeconfig(layout: &Layout, user: &str) -> Result<()> {
    let pki = layout.path("pki");
    let pki = pki.display();
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: soak, cluster: {{server: \"{}\", certificate-authority: {pki}/ca.crt}}}}]\n\
         users: [{{name: {user}, user: {{client-certificate: {pki}/{user}.crt, client-key: {pki}/{user}.key}}}}]\n\
         contexts: [{{name: soak, context: {{cluster: soak, user: {user}}}}}]\ncurrent-context: soak\n",
        layout.server()
    );
    write(&layout.folder, &format!("{user}.kubeconfig"), &text)
}
