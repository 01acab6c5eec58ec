//! Free text in entries: limited, and encoded so that it can't forge a line, hide, or reorder what is shown.

/// What stands for the rest of a text that was cut.
const CUT: char = '\u{2026}';

/// At most `most` characters of `text`, each that does not print as itself replaced by its `\u{...}` escape. So
/// is the backslash: no text can be taken for an escape.
pub(super) fn printable(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most * 4));
    for (count, c) in text.chars().enumerate() {
        if count == most {
            out.push(CUT);
            break;
        }
        if prints(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

/// Whether every character of a text shows as itself: it is one line, and nothing in it hides or reorders what is shown.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| prints(c) || c == '\\')
}

/// Whether a character shows as itself. What does not: control and format characters (bidirectional, zero width,
/// tags), separators but the space, private and unassigned ones, and the backslash.
fn prints(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c) && c != '\\';
    }
    // The standard library escapes what does not print when it debugs a string. Behind another character, so
    // that combining marks, which print there, are left alone.
    let mut pair = [b'a', 0, 0, 0, 0];
    let len = 1 + c.encode_utf8(&mut pair[1..]).len();
    let escaped =
        std::str::from_utf8(&pair[..len]).is_ok_and(|pair| pair.escape_debug().nth(1) == Some('\\'));
    !escaped && !is_blank(c)
}

/// Letters and marks that show nothing: fillers, joiners, variation selectors.
fn is_blank(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_prints_stays_as_it_is() {
        for good in ["", "Claim 4711/b, \"urgent\" {x}", "Zoë Ångström", "e\u{301}", "हिन्दी", "日本語", "😀"]
        {
            assert_eq!(printable(good, 100), good);
        }
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        for (bad, escaped) in [
            ("a\nb", "a\\u{a}b"),
            ("\r\n", "\\u{d}\\u{a}"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{2028}\u{2029}\u{85}", "\\u{2028}\\u{2029}\\u{85}"),
            ("\u{7f}\u{0}", "\\u{7f}\\u{0}"),
            ("\u{e0041}\u{fe0f}\u{3164}", "\\u{e0041}\\u{fe0f}\\u{3164}"),
            ("\\u{a}", "\\u{5c}u{a}"),
        ] {
            assert_eq!(printable(bad, 100), escaped, "{bad:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_shows_it() {
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(printable("abcd", 3), "abc\u{2026}");
        assert_eq!(printable(&"\n".repeat(600), 512).len(), 512 * 5 + 3);
    }

    /// The inverse: what the text was.
    fn unescape(text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((plain, escape)) = rest.split_once("\\u{") {
            let (code, after) = escape.split_once('}').unwrap();
            out.push_str(plain);
            out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
            rest = after;
        }
        out + rest
    }

    proptest! {
        #[test]
        fn no_text_hides_and_no_two_texts_look_the_same(text in any::<String>()) {
            let shown = printable(&text, usize::MAX >> 3);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(unescape(&shown), text);
        }
    }
}
