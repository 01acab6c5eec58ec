//! The table of built-in classes.

use zeroize::Zeroizing;

use super::value::{Context, InvalidValue};
use super::{MaskView, contact, date, financial, identifier, mask, network, padding, place, text};

/// A row of the table.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) normalize: fn(&str, Context) -> Result<Zeroizing<String>, InvalidValue>,
    pub(super) mask: fn(&str, MaskView) -> String,
    pub(super) indexed: bool,
    pub(super) public: bool,
    /// Its pattern is the site's own: configuration may replace it.
    pub(super) site_pattern: bool,
    pub(super) max_bytes: usize,
    pub(super) least_padded: usize,
}

const KIB: usize = 1024;

/// An identifier with rules of its own.
const IDENTIFIER: Builtin = Builtin {
    name: "",
    normalize: identifier::site,
    mask: |value, _| mask::last4(value),
    indexed: true,
    public: false,
    site_pattern: false,
    max_bytes: 4 * KIB,
    least_padded: padding::LEAST,
};

/// An identifier whose pattern is the site's.
const SITE: Builtin = Builtin { site_pattern: true, ..IDENTIFIER };

/// Something that is only kept.
const OPAQUE: Builtin = Builtin {
    normalize: text::opaque,
    mask: |_, _| mask::REDACTED.to_owned(),
    indexed: false,
    max_bytes: 64 * KIB,
    ..IDENTIFIER
};

/// All built-in classes.
pub(super) const ALL: &[Builtin] = &[
    Builtin { name: "ssn", normalize: identifier::ssn, mask: |v, _| identifier::mask_ssn(v), ..IDENTIFIER },
    Builtin { name: "phone", normalize: contact::phone, mask: |v, _| contact::mask_phone(v), ..IDENTIFIER },
    Builtin { name: "email", normalize: contact::email, mask: |v, _| contact::mask_email(v), ..IDENTIFIER },
    Builtin { name: "name", normalize: text::name, mask: |v, _| mask::first1(v), ..IDENTIFIER },
    Builtin { name: "dob", normalize: date::dob, mask: date::mask_dob, ..IDENTIFIER },
    Builtin { name: "address", normalize: place::address, mask: |v, _| place::mask_address(v), ..IDENTIFIER },
    Builtin { name: "zip", normalize: place::zip, mask: |v, _| place::mask_zip(v), ..IDENTIFIER },
    Builtin { name: "mrn", ..SITE },
    Builtin { name: "member_id", ..SITE },
    Builtin { name: "account", ..SITE },
    Builtin { name: "license", ..SITE },
    Builtin { name: "vehicle", ..SITE },
    Builtin { name: "device", ..SITE },
    Builtin { name: "passport", ..SITE },
    Builtin {
        name: "npi",
        normalize: identifier::npi,
        mask: |v, _| identifier::mask_npi(v),
        public: true,
        ..IDENTIFIER
    },
    Builtin { name: "mbi", normalize: identifier::mbi, mask: |v, _| identifier::mask_mbi(v), ..IDENTIFIER },
    Builtin { name: "card", normalize: financial::card, mask: |v, _| financial::mask_card(v), ..IDENTIFIER },
    Builtin { name: "iban", normalize: financial::iban, mask: |v, _| financial::mask_iban(v), ..IDENTIFIER },
    Builtin { name: "ip", normalize: network::ip, mask: |v, _| network::mask_ip(v), ..IDENTIFIER },
    Builtin { name: "url", max_bytes: 4 * KIB, ..OPAQUE },
    Builtin { name: "biometric", ..OPAQUE },
    Builtin { name: "photo", ..OPAQUE },
    Builtin { name: "other", ..OPAQUE },
    Builtin { name: "text", normalize: text::text, least_padded: padding::LEAST_TEXT, ..OPAQUE },
];
