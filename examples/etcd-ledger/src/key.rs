//! Names and values of the keys: whatever is read back can be told apart from what anybody else wrote.

/// Which key of which stream of which cycle. Its order is the order of the keys in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinates {
    /// The soak's cycle.
    pub cycle: u32,
    /// The writer thread; a stream has one write under way at a time, so its keys have an order.
    pub stream: u16,
    /// Number within the stream, from 1.
    pub n: u64,
}

impl Coordinates {
    /// The key's name. Numbers are padded, so that names sort as numbers do.
    pub fn key(self, prefix: &str) -> String {
        format!("{prefix}/{:08}/{:03}/{:010}", self.cycle, self.stream, self.n)
    }

    /// What [`Self::key`] came from; `None` for a name that this program never writes.
    pub fn parse(prefix: &str, key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix(prefix)?.strip_prefix('/')?.split('/');
        let found = Self {
            cycle: parts.next()?.parse().ok()?,
            stream: parts.next()?.parse().ok()?,
            n: parts.next()?.parse().ok()?,
        };
        (found.key(prefix) == key).then_some(found)
    }

    /// The value: the coordinates, who wrote it, filler up to `bytes`, and a checksum over all of it.
    pub fn value(self, writer: &str, bytes: usize) -> String {
        let mut value = format!("{}/{}/{} {writer} ", self.cycle, self.stream, self.n);
        let filler = bytes.saturating_sub(value.len() + 9);
        value.extend(std::iter::repeat_n('.', filler));
        let sum = crc32(value.as_bytes());
        value + &format!(" {sum:08x}")
    }

    /// Whether a value is whole, and is what `writer` wrote under these coordinates.
    pub fn is_value(self, value: &str, writer: &str) -> bool {
        let Some((text, sum)) = value.rsplit_once(' ') else { return false };
        sum == format!("{:08x}", crc32(text.as_bytes()))
            && text.starts_with(&format!("{}/{}/{} {writer} ", self.cycle, self.stream, self.n))
    }
}

/// The range of keys from a cycle on, as etcd wants it: first key, and the key after the last.
pub fn range_from(prefix: &str, cycle: u32) -> (String, String) {
    // '0' is the character after '/'.
    let begin = if cycle == 0 { format!("{prefix}/") } else { format!("{prefix}/{cycle:08}/") };
    (begin, format!("{prefix}0"))
}

/// CRC-32 (IEEE 802.3), bit by bit: a hundred bytes at a few hundred writes a second need no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Coordinates = Coordinates { cycle: 12, stream: 3, n: 4567 };

    #[test]
    fn crc_is_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_key_can_be_read_back_and_sorts_as_its_numbers_do() {
        assert_eq!(AT.key("/soak"), "/soak/00000012/003/0000004567");
        assert_eq!(Coordinates::parse("/soak", &AT.key("/soak")), Some(AT));
        for foreign in ["/soak/12/3/4567", "/soak/00000012/003", "/soak/00000012/003/0000004567/x", "/other/1/1/1"] {
            assert_eq!(Coordinates::parse("/soak", foreign), None, "{foreign}");
        }
        let next = Coordinates { n: 10_000, ..AT };
        assert!(AT.key("/soak") < next.key("/soak"));
    }

    #[test]
    fn the_range_holds_all_keys_from_the_cycle_on_and_no_others() {
        for (cycle, inside) in [(0, true), (12, true), (13, false)] {
            let (begin, end) = range_from("/soak", cycle);
            let key = AT.key("/soak");
            assert_eq!(begin <= key && key < end, inside, "{cycle}");
            let other = AT.key("/soak-of-somebody-else");
            assert!(!(begin <= other && other < end));
        }
    }

    #[test]
    fn a_value_is_only_right_for_its_key_and_writer() {
        let value = AT.value("w1", 128);
        assert_eq!(value.len(), 128);
        assert!(AT.is_value(&value, "w1"));
        assert!(!AT.is_value(&value, "w2"), "another writer's");
        assert!(!Coordinates { n: 456, ..AT }.is_value(&value, "w1"), "another key's");
        assert!(!AT.is_value(&value.replacen('.', "!", 1), "w1"), "damaged");
        assert!(!AT.is_value(&value[..100], "w1") && !AT.is_value("", "w1"), "cut off");
        assert!(AT.is_value(&AT.value("w1", 0), "w1"), "no filler");
    }
}
