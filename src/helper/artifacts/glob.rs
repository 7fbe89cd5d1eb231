//! Which paths a pattern means.

/// A pattern of paths: `*` and `?` stand for characters within one folder, `**` for any number of folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<String>);

/// Errors: what is wrong with the pattern.
impl std::str::FromStr for Glob {
    type Err = String;

    fn from_str(pattern: &str) -> Result<Self, String> {
        let parts: Vec<String> = pattern.split('/').map(str::to_owned).collect();
        if parts.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
            return Err(format!("`{pattern}` is no path below the folder, such as *.json or screens/**"));
        }
        Ok(Self(parts))
    }
}

impl Glob {
    /// Whether a path, relative and with slashes, is one of those that are meant.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let pattern: Vec<&str> = self.0.iter().map(String::as_str).collect();
        matches(&pattern, &path, |part| *part == "**", name_matches)
    }
}

fn name_matches(pattern: &&str, name: &&str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    matches(&pattern, &name, |c| *c == '*', |wanted, c| *wanted == '?' || wanted == c)
}

/// Whether items fit a pattern in which `is_any` stands for any number of them. Its time is the product of both lengths, whatever
/// the pattern.
fn matches<T, U>(pattern: &[T], items: &[U], is_any: impl Fn(&T) -> bool, fits: impl Fn(&T, &U) -> bool) -> bool {
    // reached[n]: the pattern so far fits the first n items.
    let mut reached = vec![false; items.len() + 1];
    reached[0] = true;
    for wanted in pattern {
        let mut next = vec![false; items.len() + 1];
        if is_any(wanted) {
            let mut seen = false;
            for (to, from) in next.iter_mut().zip(&reached) {
                seen |= *from;
                *to = seen;
            }
        } else {
            for (at, item) in items.iter().enumerate() {
                next[at + 1] = reached[at] && fits(wanted, item);
            }
        }
        reached = next;
    }
    reached[items.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_in_their_folder_and_double_stars_do_not() {
        for (pattern, path, expected) in [
            ("*.json", "a.json", true),
            ("*.json", "b/a.json", false),
            ("**/*.json", "a.json", true),
            ("**/*.json", "c/b/a.json", true),
            ("screens/**", "screens/a/b.png", true),
            ("screens/**", "screens", true),
            ("screens/**", "screen/a", false),
            ("s?reens/*.p*g", "screens/a.jpeg.png", true),
            ("s?reens/*", "sreens/a", false),
            ("**", "any/thing", true),
            ("*", ".hidden", true),
            ("ä?", "äö", true),
        ] {
            assert_eq!(pattern.parse::<Glob>().unwrap().matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_can_not_leave_the_folder_and_can_not_take_for_ever() {
        for pattern in ["", "/etc/passwd", "../x", "a//b", "a/./b", "a/"] {
            assert!(pattern.parse::<Glob>().is_err(), "{pattern}");
        }
        let pattern: Glob = "*a".repeat(120).parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(255).replace("aaa", "aab")), "it ends");
    }
}
