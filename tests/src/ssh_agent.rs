//! An SSH agent on a Unix socket, whose security keys are in software: as real as any to whoever asks it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::authenticator::{Authenticator, PRESENT, string};

/// An agent. Its thread ends with the process.
pub struct SoftAgent {
    socket: PathBuf,
    counter: Arc<AtomicU32>,
}

impl SoftAgent {
    /// Serves these keys at a socket.
    ///
    /// # Panics
    /// If the socket can't be made.
    pub fn serve(socket: &Path, keys: Vec<Authenticator>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let counter = Arc::new(AtomicU32::new(0));
        let (keys, counted) = (Arc::new(keys), Arc::clone(&counter));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (keys, counter) = (Arc::clone(&keys), Arc::clone(&counted));
                thread::spawn(move || while answer(&stream, &keys, &counter).is_some() {});
            }
        });
        Self { socket: socket.to_owned(), counter }
    }

    /// For `SSH_AUTH_SOCK`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How often its keys were touched.
    pub fn touches(&self) -> u32 {
        self.counter.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: &UnixStream, keys: &[Authenticator], counter: &AtomicU32) -> Option<()> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut request = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut request).ok()?;
    let answer = match request.split_first() {
        Some((11, _)) => {
            let count = u32::try_from(keys.len()).unwrap().to_be_bytes();
            let listed = keys.iter().flat_map(|key| [string(&key.blob()), string(b"soft")].concat());
            [vec![12], count.to_vec(), listed.collect()].concat()
        }
        Some((13, rest)) => signed(rest, keys, counter).unwrap_or_else(|| vec![5]),
        _ => vec![5],
    };
    stream.write_all(&string(&answer)).ok()
}

fn signed(mut rest: &[u8], keys: &[Authenticator], counter: &AtomicU32) -> Option<Vec<u8>> {
    let (blob, data) = (take(&mut rest)?, take(&mut rest)?);
    let key = keys.iter().find(|key| key.blob() == blob)?;
    let counter = counter.fetch_add(1, Ordering::SeqCst) + 1;
    Some([vec![14], string(&key.sign(data, PRESENT, counter))].concat())
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = from.split_at_checked(4)?;
    let len = u32::from_be_bytes(len.try_into().ok()?) as usize;
    let (taken, rest) = rest.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}
