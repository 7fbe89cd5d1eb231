//! Addresses that a pod does not reach any more.
//!
//! The kernel asks a routing table of our own before all others but that of local addresses, so the pod's own routes are left as
//! they are, and a route of the same subnet does not win over ours. Packets to what is cut are sent over the loopback device, where
//! nobody takes them: they are lost without a word, as on a broken line, while a blackhole route would tell the sender at once.

use std::{collections::BTreeSet, io, net::IpAddr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use super::prefix::{Prefix, Way};

/// Marks our routes and rules (`proto` in `ip route`).
const PROTOCOL: u8 = 90;
/// After the table of local addresses (0), before the main one (32766).
const PRIORITY: u32 = 5;
/// The loopback device is the first of every network.
const LOOPBACK: u32 = 1;

/// The number of a work's routing table.
pub(super) fn table(key: &str) -> u32 {
    // FNV-1a; twenty bits of it below a beginning of our own.
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    0x50a0_0000 | ((hash ^ (hash >> 20)) & 0x000f_ffff)
}

/// What is there of a work in this thread's network.
#[derive(Debug, Default)]
pub(super) struct There {
    rules: Vec<RuleMessage>,
    routes: Vec<RouteMessage>,
}

impl There {
    /// Whether there is nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.rules.is_empty() && self.routes.is_empty()
    }

    /// Whether all of these routes are there and asked for.
    pub(super) fn is_all(&self, wanted: &BTreeSet<(Prefix, Way)>) -> bool {
        let there: BTreeSet<(Prefix, Way)> = self.routes.iter().filter_map(read).collect();
        wanted.iter().all(|(prefix, way)| {
            let v6 = prefix.address.is_ipv6();
            let asked = self.rules.iter().any(|rule| (rule.header.family == AddressFamily::Inet6) == v6);
            // A network without IPv6 has nothing to cut there.
            (asked && there.contains(&(*prefix, *way))) || (v6 && !self.has_v6())
        })
    }

    fn has_v6(&self) -> bool {
        self.rules.iter().any(|rule| rule.header.family == AddressFamily::Inet6)
    }
}

fn failed(what: &str) -> impl Fn(rtnetlink::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// A connection to the kernel, in this thread's network.
fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Reads what is there of a work.
pub(super) async fn look(table: u32) -> io::Result<There> {
    look_with(&connect()?, table).await
}

async fn look_with(handle: &Handle, table: u32) -> io::Result<There> {
    let mut there = There::default();
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules: Vec<RuleMessage> = match handle.rule().get(version.clone()).execute().try_collect().await {
            Ok(rules) => rules,
            Err(_) if version == IpVersion::V6 => continue,
            Err(error) => return Err(failed("the kernel's routing rules can't be read")(error)),
        };
        there.rules.extend(rules.into_iter().filter(|rule| {
            let ours = |it: &RuleAttribute| matches!(it, RuleAttribute::Table(number) if *number == table);
            rule.attributes.iter().any(ours)
        }));
        let all = match version {
            IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        };
        let routes: Vec<RouteMessage> =
            handle.route().get(all).execute().try_collect().await.map_err(failed("routes can't be read"))?;
        there.routes.extend(routes.into_iter().filter(|route| {
            let ours = |it: &RouteAttribute| matches!(it, RouteAttribute::Table(number) if *number == table);
            route.attributes.iter().any(ours)
        }));
    }
    Ok(there)
}

/// Makes the routes, and then the rule by which they are asked: all of them count at once.
///
/// Errors: some of it may be there.
pub(super) async fn make(table: u32, wanted: BTreeSet<(Prefix, Way)>) -> io::Result<()> {
    let handle = connect()?;
    let there = look_with(&handle, table).await?;
    for v6 in [false, true] {
        let of_family: Vec<&(Prefix, Way)> = wanted.iter().filter(|(it, _)| it.address.is_ipv6() == v6).collect();
        if of_family.iter().all(|(_, way)| *way == Way::Usual) {
            continue;
        }
        // Only everything is cut in a family that the network may not have.
        let optional = v6 && of_family.iter().all(|(it, way)| it.length == 0 || *way == Way::Usual);
        match make_family(&handle, table, &there, v6, &of_family).await {
            Err(error) if optional && is_unsupported(&error) => {}
            Err(error) => return Err(failed("a route can't be made")(error)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn is_unsupported(error: &rtnetlink::Error) -> bool {
    let unsupported = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::ACCESS];
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if unsupported.iter().any(|errno| message.raw_code().abs() == errno.raw_os_error()))
}

async fn make_family(
    handle: &Handle,
    table: u32,
    there: &There,
    v6: bool,
    wanted: &[&(Prefix, Way)],
) -> Result<(), rtnetlink::Error> {
    for (prefix, way) in wanted {
        handle.route().add(route(table, *prefix, *way)).replace().execute().await?;
    }
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    if there.rules.iter().any(|rule| rule.header.family == family) {
        return Ok(());
    }
    let mut request = handle.rule().add().table_id(table).priority(PRIORITY).action(RuleAction::ToTable);
    let message = request.message_mut();
    message.header.family = family;
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    request.execute().await
}

fn route(table: u32, prefix: Prefix, way: Way) -> RouteMessage {
    let Prefix { address, length } = prefix;
    let mut message = match address {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, length).table_id(table).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, length).table_id(table).build()
        }
    };
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    match way {
        Way::Usual => message.header.kind = RouteType::Throw,
        Way::Cut => {
            message.header.kind = RouteType::Unicast;
            message.attributes.push(RouteAttribute::Oif(LOOPBACK));
            if address.is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
        }
    }
    message
}

/// A route of ours as it was wanted.
fn read(route: &RouteMessage) -> Option<(Prefix, Way)> {
    let v6 = route.header.address_family == AddressFamily::Inet6;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    let address = address.unwrap_or(Prefix::everything(v6).address);
    let prefix = Prefix { address, length: route.header.destination_prefix_length };
    match route.header.kind {
        RouteType::Throw => Some((prefix, Way::Usual)),
        RouteType::Unicast => Some((prefix, Way::Cut)),
        _ => None,
    }
}

/// Removes all of a work: the rules first, so that the pod is whole at once.
///
/// Errors: some of it may be left.
pub(super) async fn undo(table: u32) -> io::Result<()> {
    let handle = connect()?;
    let there = look_with(&handle, table).await?;
    for rule in there.rules {
        handle.rule().del(rule).execute().await.map_err(failed("a routing rule can't be removed"))?;
    }
    for route in there.routes {
        handle.route().del(route).execute().await.map_err(failed("a route can't be removed"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_work_has_a_table_of_its_own_and_all_are_known_as_ours() {
        let tables: BTreeSet<u32> = (0..200).map(|n| table(&format!("soak-{n}-uid"))).collect();
        assert_eq!(tables.len(), 200);
        assert!(tables.iter().all(|table| table >> 20 == 0x50a), "{tables:x?}");
        assert_eq!(table("a"), table("a"));
    }

    #[test]
    fn a_route_is_read_back_as_it_was_wanted() {
        for (prefix, way) in [
            ("10.0.0.7", Way::Cut),
            ("0.0.0.0/0", Way::Cut),
            ("fd00::/8", Way::Cut),
            ("::/0", Way::Cut),
            ("10.0.0.0/24", Way::Usual),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(read(&route(7_000, prefix, way)), Some((prefix, way)));
        }
    }
}
