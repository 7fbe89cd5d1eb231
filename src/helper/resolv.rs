//! The name servers of a container.

use std::{io, net::IpAddr, path::Path};

use super::prefix::Prefix;

/// The name servers that an `/etc/resolv.conf` names.
pub(super) fn servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(word) = words.next()
            // A link-local address may name its interface.
            && let Ok(address) = word.split('%').next().unwrap_or(word).parse()
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

/// The name servers that a process sees.
///
/// Errors: its file can't be read, or names none.
pub(super) fn servers_of(proc: &Path, pid: u32) -> io::Result<Vec<Prefix>> {
    let file = proc.join(pid.to_string()).join("root/etc/resolv.conf");
    let text = std::fs::read_to_string(file)?;
    let servers: Vec<Prefix> = servers(&text)
        .into_iter()
        .map(|address| Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } })
        .collect();
    if servers.is_empty() {
        return Err(io::Error::other("its /etc/resolv.conf names no server: name them in the fault"));
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_name_servers_count() {
        let text = "# nameserver 1.1.1.1\nsearch team.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\n\
                    nameserver\tfd00::a\nnameserver fe80::1%eth0\nnameserver 10.96.0.10\nnameserver nobody\noptions ndots:5\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.96.0.10", "fd00::a", "fe80::1"]);
        assert!(servers("").is_empty());
    }
}
