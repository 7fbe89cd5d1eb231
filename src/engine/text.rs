//! Bounds on texts that come from outside and end up in the status.

/// Longest reason, in bytes.
pub const REASON: usize = 64;
/// Longest message of a step, in bytes.
pub const MESSAGE: usize = 256;
/// Longest text of an output, in bytes.
pub const OUTPUT: usize = 256;

/// Cuts a text to at most `limit` bytes, at a character, and marks the cut.
pub fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn never_longer_than_asked_and_never_inside_a_character() {
        assert_eq!(cut("short", 64), "short");
        assert_eq!(cut("abcdefgh", 6), "abc…");
        assert_eq!(cut("ääääää", 8).len(), 7);
    }
}
