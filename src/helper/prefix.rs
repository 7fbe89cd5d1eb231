//! Addresses and ranges of addresses, and the routes that keep a pod from reaching them.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

/// A range of addresses; a single one is a range of its full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// So many leading bits are common to all.
    pub length: u8,
}

impl Prefix {
    /// All addresses of one family.
    pub(super) const fn everything(v6: bool) -> Self {
        let address =
            if v6 { IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED) };
        Self { address, length: 0 }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let wrong = || format!("`{text}` is neither an address nor a range such as 10.1.0.0/16");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), |length| length.parse().map_err(|_| wrong()))?;
        if length > most {
            return Err(format!("`{text}`: a prefix has at most {most} bits"));
        }
        // The kernel refuses a range whose first address has bits beyond its length.
        let address = match address {
            IpAddr::V4(v4) => {
                IpAddr::from((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).to_be_bytes())
            }
            IpAddr::V6(v6) => IpAddr::from(
                (u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).to_be_bytes(),
            ),
        };
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// What becomes of packets to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// They are dropped without a word.
    Cut,
    /// They go as they would without us.
    Usual,
}

/// The routes of a cut, each range once. What is excepted wins over an equal range that is cut.
pub(super) fn routes(cut: &[Prefix], everything: bool, except: &[Prefix]) -> BTreeSet<(Prefix, Way)> {
    let mut routes: BTreeSet<(Prefix, Way)> = except.iter().map(|prefix| (*prefix, Way::Usual)).collect();
    let all = [Prefix::everything(false), Prefix::everything(true)];
    for prefix in cut.iter().chain(if everything { &all[..] } else { &[] }) {
        if !routes.contains(&(*prefix, Way::Usual)) {
            routes.insert((*prefix, Way::Cut));
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_a_range_of_its_full_length() {
        assert_eq!(prefix("10.0.0.7").to_string(), "10.0.0.7/32");
        assert_eq!(prefix("fd00::7").to_string(), "fd00::7/128");
    }

    #[test]
    fn a_range_begins_with_its_first_address() {
        for (text, is) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00:1::7/32", "fd00:1::/32"),
            ("::1/0", "::/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
        ] {
            assert_eq!(prefix(text).to_string(), is);
        }
    }

    #[test]
    fn what_is_no_range_is_told() {
        for text in ["", "10.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/x", "web", "10.0.0.1/8/8"] {
            let error = Prefix::from_str(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn isolation_cuts_both_families_but_for_the_exceptions() {
        let routes = routes(&[], true, &[prefix("10.88.0.1")]);
        let text: Vec<String> = routes.iter().map(|(prefix, way)| format!("{prefix} {way:?}")).collect();
        assert_eq!(text, ["0.0.0.0/0 Cut", "10.88.0.1/32 Usual", "::/0 Cut"]);
    }

    #[test]
    fn a_range_is_there_once_and_an_exception_wins() {
        let cut = [prefix("10.0.0.7"), prefix("10.0.0.7/32"), prefix("10.0.0.8")];
        let routes = routes(&cut, false, &[prefix("10.0.0.8")]);
        assert_eq!(routes.into_iter().collect::<Vec<_>>(), [(cut[0], Way::Cut), (cut[2], Way::Usual)]);
    }
}
