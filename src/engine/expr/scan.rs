//! The little of CEL's lexical grammar that is needed to find where an expression in a text ends, and how deeply
//! brackets are nested in it, before the real parser sees it.

/// How a scan over an expression ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At a closing brace that was not opened inside, at this byte.
    Brace(usize),
    /// At the end of the text.
    Text,
}

/// A scan over an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where it ended.
    pub(super) end: End,
    /// The deepest nesting of brackets and of `?` operators.
    pub(super) depth: usize,
    /// The longest run of operators, selections and calls on one level: what the parser turns into a tree of that depth.
    pub(super) chain: usize,
}

/// Scans from the beginning of `text`, which is inside an expression, over literals and comments as CEL has them.
pub(super) fn scan(text: &str) -> Scan {
    let bytes = text.as_bytes();
    let mut open: Vec<(u8, usize)> = vec![(0, 0)];
    let (mut depth, mut chain) = (0, 0);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'`' => {
                at =
                    bytes[at + 1..].iter().position(|byte| *byte == b'`').map_or(bytes.len(), |length| at + length + 2);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length);
                continue;
            }
            opening @ (b'(' | b'[' | b'{') => {
                count(&mut open, &mut chain);
                open.push((opening, 0));
                depth = depth.max(open.len() - 1);
            }
            b')' | b']' if open.len() > 1 => {
                open.pop();
            }
            b'}' => {
                if !open.iter().any(|(opening, _)| *opening == b'{') {
                    return Scan { end: End::Brace(at), depth, chain };
                }
                // Brackets left open inside of braces are the parser's to complain about.
                while open.pop().is_some_and(|(opening, _)| opening != b'{') {}
            }
            // A comma and the logical operators, which the parser balances, begin a fresh chain on the same level.
            b',' | b'&' | b'|' => {
                if let Some((_, length)) = open.last_mut() {
                    *length = 0;
                }
            }
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' | b'?' => count(&mut open, &mut chain),
            b'i' if bytes[at..].starts_with(b"in") && is_word_edge(bytes, at) && is_word_edge(bytes, at + 2) => {
                count(&mut open, &mut chain);
            }
            _ => {}
        }
        at += 1;
    }
    Scan { end: End::Text, depth, chain }
}

fn count(open: &mut [(u8, usize)], chain: &mut usize) {
    if let Some((_, length)) = open.last_mut() {
        *length += 1;
        *chain = (*chain).max(*length);
    }
}

fn is_word_edge(bytes: &[u8], at: usize) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    !(is_word(at.checked_sub(1).and_then(|before| bytes.get(before))) && is_word(bytes.get(at)))
}

/// The byte after the string literal whose quote is at `start`. A literal that does not end reaches to the end.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let raw = is_raw(bytes, start);
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let closing: &[u8] = if triple { &[quote; 3] } else { &[quote] };
    let mut at = start + closing.len();
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if bytes[at..].starts_with(closing) {
            return at + closing.len();
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Whether the prefix of the literal (`r`, `br`, `rb` in either case) makes it raw.
fn is_raw(bytes: &[u8], start: usize) -> bool {
    let mut from = start;
    while from > 0 && start - from < 2 && matches!(bytes[from - 1], b'r' | b'R' | b'b' | b'B') {
        from -= 1;
    }
    let prefix = &bytes[from..start];
    prefix.iter().any(|byte| matches!(byte, b'r' | b'R')) && is_word_edge(bytes, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_brace_is_found() {
        for (text, rest, why) in [
            ("a} b", Some("} b"), "the first brace ends it"),
            ("{'a': 1}['a']} b", Some("} b"), "a map's braces belong to the expression"),
            ("'}' + \"}\"} b", Some("} b"), "braces in strings do not count"),
            ("'\\'}'} b", Some("} b"), "an escaped quote does not end a string"),
            ("r'\\'} b", Some("} b"), "in a raw string a backslash escapes nothing"),
            ("bar'\\'}'} b", Some("} b"), "a name that ends in r is no raw prefix"),
            ("a + brr'\\'}'} b", Some("} b"), "nor is one that is all of such letters"),
            ("'''it's }'''} b", Some("} b"), "a triple-quoted string holds single quotes"),
            ("a // }\n} b", Some("} b"), "braces in comments do not count"),
            ("a / b} c", Some("} c"), "a division is no comment"),
            ("steps.`a}b`} c", Some("} c"), "braces in escaped names do not count"),
            ("a[(} b", Some("} b"), "open brackets do not hide the end"),
            ("a", None, "nothing ends it"),
            ("'a}", None, "a string that is not closed swallows the rest"),
        ] {
            let found = match scan(text).end {
                End::Brace(at) => Some(&text[at..]),
                End::Text => None,
            };
            assert_eq!(found, rest, "{text}: {why}");
        }
    }

    #[test]
    fn nesting_is_measured() {
        for (text, depth, chain, why) in [
            ("a", 0, 0, "a name is flat"),
            ("((a))", 2, 1, "brackets nest"),
            ("f(a, b, c)", 1, 1, "arguments do not"),
            ("a.b.c.d", 0, 3, "selections chain"),
            ("[a.b, c.d]", 1, 1, "a comma begins a new chain"),
            ("a.b && c.d && e.f", 0, 1, "a conjunction is flat"),
            ("'((((' + a", 0, 1, "strings do not count"),
            ("x in y", 0, 1, "in is an operator"),
            ("index", 0, 0, "a name that begins with in is none"),
            ("begin", 0, 0, "nor one that ends with it"),
            ("id", 0, 0, "nor one that only begins like it"),
            ("(a) + (b)", 1, 3, "a bracket that closes is left"),
            ("a[0] + b[0]", 1, 3, "of either kind"),
            ("a) + (b)", 1, 2, "a stray bracket closes nothing"),
        ] {
            let scan = scan(text);
            assert_eq!((scan.depth, scan.chain), (depth, chain), "{text}: {why}");
        }
    }
}
