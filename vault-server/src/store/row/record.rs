//! A record's row; its token is the row's key. The layout is in [`super`].

use super::{CorruptRow, Reader, VERSION, content, push_bytes, push_name};
use crate::domain::{
    BlindIndex, Body, ClassName, KeyId, KeyVersion, Record, Sealed, SubjectRef, TenantId, Timestamp, Token,
};
use crate::store::keys::{Indexed, Space};

const HAS_SUBJECT: u8 = 1;
const HAS_INDEX: u8 = 2;
const IS_ERASED: u8 = 4;

/// A record as its row has it, nothing copied.
#[derive(Debug)]
pub(crate) struct RecordRow<'a> {
    /// How often it changed.
    pub(crate) revision: u32,
    created: Timestamp,
    tenant: &'a str,
    class: &'a str,
    subject: Option<&'a [u8; SubjectRef::LEN]>,
    index: Option<&'a [u8; BlindIndex::LEN]>,
    body: BodyRow<'a>,
}

#[derive(Debug)]
enum BodyRow<'a> {
    Erased { at: Timestamp },
    Sealed { key_id: &'a [u8; 16], key_version: u32, bytes: &'a [u8] },
}

impl<'a> RecordRow<'a> {
    /// The row's content, after its checksum was compared.
    pub(crate) fn read(token: &[u8; 16], row: &'a [u8]) -> Result<Self, CorruptRow> {
        let mut reader = Reader(content(Space::Records, token, row)?);
        reader.version()?;
        let revision = reader.u32()?;
        let created = reader.time()?;
        let (tenant, class) = (reader.name()?, reader.name()?);
        let flags = reader.u8()?;
        if flags & !(HAS_SUBJECT | HAS_INDEX | IS_ERASED) != 0 {
            return Err(CorruptRow);
        }
        let subject = if flags & HAS_SUBJECT == 0 { None } else { Some(reader.array()?) };
        let index = if flags & HAS_INDEX == 0 { None } else { Some(reader.array()?) };
        let body = if flags & IS_ERASED == 0 {
            BodyRow::Sealed { key_id: reader.array()?, key_version: reader.u32()?, bytes: reader.bytes()? }
        } else {
            BodyRow::Erased { at: reader.time()? }
        };
        reader.end()?;
        Ok(Self { revision, created, tenant, class, subject, index, body })
    }

    /// What its index rows are made of.
    pub(crate) fn indexed(&self, token: &'a [u8; 16]) -> Indexed<'a> {
        let (subject, key) = match self.body {
            BodyRow::Sealed { key_id, .. } => (self.subject.copied(), Some(*key_id)),
            BodyRow::Erased { .. } => (None, None),
        };
        Indexed { tenant: self.tenant, class: self.class, subject, index: self.index.copied(), key, token }
    }
}

/// Content of a record's row.
pub(crate) fn write_record(record: &Record, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&record.revision.to_be_bytes());
    out.extend_from_slice(&record.created.0.to_be_bytes());
    push_name(out, record.tenant.as_str());
    push_name(out, record.class.as_str());
    let erased = matches!(record.body, Body::Erased { .. });
    out.push(
        if record.subject.is_some() { HAS_SUBJECT } else { 0 }
            | if record.index.is_some() { HAS_INDEX } else { 0 }
            | if erased { IS_ERASED } else { 0 },
    );
    if let Some(subject) = record.subject {
        out.extend_from_slice(&subject.to_bytes());
    }
    if let Some(index) = record.index {
        out.extend_from_slice(&index.to_bytes());
    }
    match &record.body {
        Body::Erased { at } => out.extend_from_slice(&at.0.to_be_bytes()),
        Body::Sealed { key_id, key_version, bytes } => {
            out.extend_from_slice(key_id.as_bytes());
            out.extend_from_slice(&key_version.0.to_be_bytes());
            push_bytes(out, &bytes.0);
        }
    }
}

/// The record of a row.
pub(crate) fn read_record(token: Token, row: &[u8]) -> Result<Record, CorruptRow> {
    let row = RecordRow::read(token.as_bytes(), row)?;
    let tenant = TenantId::parse(row.tenant).map_err(|_| CorruptRow)?;
    let class = ClassName::parse(row.class).map_err(|_| CorruptRow)?;
    let body = match row.body {
        BodyRow::Sealed { key_id, key_version, bytes } => Body::Sealed {
            key_id: KeyId::from_bytes(*key_id),
            key_version: KeyVersion(key_version),
            bytes: Sealed(bytes.to_vec()),
        },
        BodyRow::Erased { at } => Body::Erased { at },
    };
    Ok(Record {
        token,
        tenant,
        class,
        subject: row.subject.map(|bytes| SubjectRef::from_bytes(*bytes)),
        index: row.index.map(|bytes| BlindIndex::from_bytes(*bytes)),
        created: row.created,
        body,
        revision: row.revision,
    })
}
