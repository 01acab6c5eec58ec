//! Claims about every class.

mod claims;
mod custom;
mod properties;
mod real_data;

use super::*;

/// 2025-06-15T12:00:00Z.
pub(super) const NOW: Timestamp = Timestamp(1_749_988_800_000_000);

pub(super) fn classes(accept_synthetic: bool) -> Classes {
    Classes::builtin(ClassOptions { accept_synthetic })
}

pub(super) fn plain(value: &str) -> Plaintext {
    Plaintext::from_utf8(value.as_bytes().to_vec()).unwrap()
}

pub(super) fn class<'a>(classes: &'a Classes, name: &str) -> &'a DataClass {
    classes.get(&ClassName::parse(name).unwrap()).unwrap()
}

pub(super) fn normalized(class: &DataClass, value: &str) -> Result<String, InvalidValue> {
    class.normalize(&plain(value), NOW).map(|n| n.expose().to_owned())
}

pub(super) fn masked(class: &DataClass, value: &str, view: MaskView) -> String {
    class.mask(&plain(value), view).expose().to_owned()
}
