//! Messages of phi-vault to bytes and back, in buffers of their size: what the generated code of `vault-proto` uses.
//!
//! As [`tonic_prost::ProstCodec`], which takes 8 KiB for each message, and twice as much again and again for a larger one. Most
//! calls are about one value, and who wipes what it frees, as the vault does, pays for each byte twice.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a buffer begins with, in bytes: room for a call that is about one value. It grows to what a larger message takes.
const BEGIN: usize = 512;
/// A stream's messages go out together until they are so many bytes, as by tonic's default.
const YIELD: usize = 32 * 1024;

/// Sends `T`, receives `U`.
#[derive(Debug, Clone)]
pub struct SizedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SizedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SizedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder(ProstEncoder::new(buffers()))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}

/// Takes what a message needs at once.
#[derive(Debug, Clone)]
pub struct SizedEncoder<T>(ProstEncoder<T>);

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        self.0.encode(item, buf)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BEGIN, YIELD)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prost_types::FieldMask;
    use tonic::Code;
    use tonic::codec::{EncodeBody, Streaming};

    use super::*;

    type Masks = SizedCodec<FieldMask, FieldMask>;

    /// What is before each message: whether it is compressed, and its length.
    const HEADER: usize = 5;

    fn of_paths(count: usize) -> FieldMask {
        FieldMask { paths: vec!["a path of some length".to_owned(); count] }
    }

    fn body(mask: FieldMask) -> tonic::body::Body {
        let source = tokio_stream::iter([Ok(mask)]);
        tonic::body::Body::new(EncodeBody::new_client(Masks::default().encoder(), source, None, None))
    }

    #[tokio::test]
    async fn a_buffer_is_as_large_as_its_message_takes() {
        for (paths, most) in [(0, BEGIN), (1, BEGIN), (1_000, HEADER + of_paths(1_000).encoded_len())] {
            let frame = body(of_paths(paths)).frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.len(), HEADER + of_paths(paths).encoded_len());
            let buffer = frame.try_into_mut().unwrap();
            assert!(buffer.capacity() <= most, "{} bytes for {paths} paths", buffer.capacity());
        }
    }

    #[tokio::test]
    async fn what_goes_out_comes_in() {
        for paths in [0, 1, 20, 100, 10_000] {
            let decoder = Masks::default().decoder();
            let mut messages = Streaming::new_request(decoder, body(of_paths(paths)), None, None);
            assert_eq!(messages.message().await.unwrap().unwrap(), of_paths(paths));
            assert!(messages.message().await.unwrap().is_none());
        }
    }

    /// The vault tells its callers of it by these words.
    #[tokio::test]
    async fn garbage_is_refused_as_by_the_librarys_codec() {
        let decoder = Masks::default().decoder();
        let garbage = tonic::body::Body::new(http_body_util::Full::new(prost::bytes::Bytes::from_static(&[
            0, 0, 0, 0, 2, 0xFF, 0xFF,
        ])));
        let refused = Streaming::new_request(decoder, garbage, None, None).message().await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().starts_with("failed to decode"), "{}", refused.message());
    }
}
