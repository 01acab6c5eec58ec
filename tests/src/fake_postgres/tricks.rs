//! One connection, from the startup message on.

use std::io::{Error, ErrorKind, Result};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::messages::{
    authentication, columns, complete, error, huge, message, parameters, ready, row, welcome,
};
use super::{Oid, Trick};

/// In place of a version: asks for TLS, or for encryption by GSSAPI.
const TLS_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// A client says less than this.
const LONGEST: u32 = 1 << 20;

/// How much of 2 GiB is really sent.
const SENT: usize = 4 << 20;

const ERROR_LENGTH: usize = 16 << 20;

/// Plays one.
pub(super) async fn play(mut stream: TcpStream, trick: &Trick) -> Result<()> {
    if *trick == Trick::Silence {
        return std::future::pending().await;
    }
    while let TLS_REQUEST | GSS_REQUEST = startup(&mut stream).await? {
        if *trick == Trick::TlsGarbage {
            stream.write_all(&[b"S", &noise()[..]].concat()).await?;
            return linger(&mut stream).await;
        }
        stream.write_all(b"N").await?;
    }
    match trick {
        Trick::Silence | Trick::Close | Trick::TlsGarbage => Ok(()),
        Trick::Garbage => {
            stream.write_all(&noise()).await?;
            linger(&mut stream).await
        }
        Trick::HugeMessage => {
            stream.write_all(&huge(b'R')).await?;
            stream.write_all(&vec![0; SENT]).await?;
            linger(&mut stream).await
        }
        Trick::LongError => {
            let line = "\x1b]0;title\x07\x1b[2J\r\nFATAL: no\u{202e}t so\n";
            stream.write_all(&error(&line.repeat(ERROR_LENGTH / line.len()))).await?;
            linger(&mut stream).await
        }
        Trick::WrongSignature | Trick::Iterations(_) | Trick::ForeignNonce | Trick::EndlessScram => {
            scram(&mut stream, trick).await
        }
        Trick::HugeRow
        | Trick::TooFewColumns(_)
        | Trick::WrongTypes(_)
        | Trick::NegativeLengths(_)
        | Trick::TooLongColumns(_) => statements(&mut stream, trick).await,
    }
}

/// SCRAM-SHA-256 as RFC 5802 has it, up to where it goes wrong.
async fn scram(stream: &mut TcpStream, trick: &Trick) -> Result<()> {
    stream.write_all(&authentication(10, b"SCRAM-SHA-256\0\0")).await?;
    let (_, body) = read(stream).await?;
    let text = String::from_utf8_lossy(&body);
    let nonce = text.rsplit_once("r=").map_or("", |(_, nonce)| nonce);
    let (nonce, iterations) = match trick {
        Trick::ForeignNonce => ("somebody-elses-nonce".to_owned(), 4096),
        Trick::Iterations(iterations) => (format!("{nonce}more"), *iterations),
        _ => (format!("{nonce}more"), 4096),
    };
    let first = format!("r={nonce},s={},i={iterations}", STANDARD.encode([7; 16]));
    let first = authentication(11, first.as_bytes());
    stream.write_all(&first).await?;
    if *trick == Trick::EndlessScram {
        loop {
            stream.write_all(&first).await?;
        }
    }
    // If the client goes on, it gets what it must not accept.
    read(stream).await?;
    let last = format!("v={}", STANDARD.encode([7; 32]));
    stream.write_all(&authentication(12, last.as_bytes())).await?;
    stream.write_all(&welcome()).await?;
    linger(stream).await
}

/// Lets the client in and answers its statements.
async fn statements(stream: &mut TcpStream, trick: &Trick) -> Result<()> {
    stream.write_all(&welcome()).await?;
    let types = match trick {
        Trick::TooFewColumns(types)
        | Trick::WrongTypes(types)
        | Trick::NegativeLengths(types)
        | Trick::TooLongColumns(types) => types.clone(),
        _ => vec![25],
    };
    let mut asked = Vec::new();
    loop {
        let (tag, body) = read(stream).await?;
        let answer = match tag {
            b'Q' => [columns(&types), rows(trick, &types), complete(), ready()].concat(),
            b'P' => {
                asked = parameter_types(&body);
                message(b'1', &[])
            }
            b'D' => [parameters(&asked), columns(&types)].concat(),
            b'B' => message(b'2', &[]),
            b'E' => [rows(trick, &types), complete()].concat(),
            b'C' => message(b'3', &[]),
            b'S' => ready(),
            b'X' => return Ok(()),
            _ => Vec::new(),
        };
        stream.write_all(&answer).await?;
    }
}

fn rows(trick: &Trick, types: &[Oid]) -> Vec<u8> {
    let same = |value: (i32, &'static [u8])| row(&vec![value; types.len()]);
    match trick {
        Trick::TooFewColumns(_) => row(&[]),
        // Neither text nor a number of any length, nor a truth value.
        Trick::WrongTypes(_) => same((3, &[0xff, 0x00, 0xfe])),
        Trick::NegativeLengths(_) => same((-2, &[])),
        Trick::TooLongColumns(_) => same((i32::MAX, b"bytes")),
        _ => [huge(b'D'), vec![0; SENT]].concat(),
    }
}

/// The types that a `Parse` names; a parameter beyond those is called `bytea`.
fn parameter_types(body: &[u8]) -> Vec<Oid> {
    let mut parts = body.splitn(3, |byte| *byte == 0);
    let text = parts.nth(1).unwrap_or_default();
    let named = parts.next().unwrap_or_default().get(2..).unwrap_or_default();
    let mut types: Vec<Oid> =
        named.chunks_exact(4).map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]])).collect();
    let text = String::from_utf8_lossy(text);
    let numbers = text.split('$').skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    let count = numbers.max().unwrap_or(0).min(1000).max(types.len());
    types.resize(count, 17);
    types
}

/// Reads the message without a tag that every connection begins with; gives its version.
async fn startup(stream: &mut TcpStream) -> Result<u32> {
    let body = body(stream).await?;
    let version = body.get(..4).ok_or(ErrorKind::InvalidData)?;
    Ok(u32::from_be_bytes([version[0], version[1], version[2], version[3]]))
}

async fn read(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    Ok((stream.read_u8().await?, body(stream).await?))
}

async fn body(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if !(4..=LONGEST).contains(&length) {
        return Err(Error::from(ErrorKind::InvalidData));
    }
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Waits until the client goes away, so that it sees what was sent and not a broken connection.
async fn linger(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Bytes that begin no message and no record.
fn noise() -> Vec<u8> {
    (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect()
}
