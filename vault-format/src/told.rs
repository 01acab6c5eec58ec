//! What may be told of a text that is not what it should be.

/// Of what a deserializer says (`invalid type: string "a", expected a boolean`): what should stand there. Not what does, which may
/// be a value: somebody gave another file.
pub fn expected(message: &str) -> String {
    const FOUND: [&str; 4] = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    match message.split_once(", expected ") {
        Some((before, expected)) if FOUND.iter().any(|found| before.starts_with(found)) => {
            format!("expected {expected}")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn what_stands_there_is_not_told() {
        for (says, told) in [
            ("invalid type: string \"999-68-7171\", expected a boolean", "expected a boolean"),
            ("invalid value: integer `99968`, expected u16", "expected u16"),
            ("invalid length 0, expected a name", "expected a name"),
            ("unknown variant `999-68-7171`, expected `a` or `b`", "expected `a` or `b`"),
            ("unknown field `a`, expected `b`", "unknown field `a`, expected `b`"),
            ("missing field `a`", "missing field `a`"),
        ] {
            assert_eq!(expected(says), told);
        }
    }
}
