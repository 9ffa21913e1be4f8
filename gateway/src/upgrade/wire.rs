//! Messages of a handover: four bytes of length (big endian), then JSON. Sockets travel with
//! single bytes of their own, a batch with each.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a message at most: thousands of sockets are named in one.
pub(super) const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Sockets in one batch; the kernel takes 253 at most (SCM_MAX_FD).
pub(super) const BATCH: usize = 64;

/// What stands before a message.
pub(super) const PREFIX_BYTES: usize = 4;

/// A message with its length.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok();
    let length = length.filter(|_| json.len() <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| invalid("the message is too long"))?;
    Ok([&length.to_be_bytes(), &*json].concat())
}

/// The length that stands before a message.
pub(super) fn length(prefix: [u8; PREFIX_BYTES]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid("the message is too long"));
    }
    Ok(length)
}

/// The message itself.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> io::Result<T> {
    serde_json::from_slice(json).map_err(|_| invalid("the message makes no sense"))
}

pub(super) fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Sends a batch of sockets.
pub(super) fn send_batch(stream: impl AsFd, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(invalid("too many sockets for one batch"));
    }
    sendmsg(
        stream,
        &[IoSlice::new(b"#")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives bytes, and the sockets that come with them. Zero bytes: the other side is gone.
pub(super) fn receive(
    stream: impl AsFd,
    bytes: &mut [u8],
    sockets: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(bytes)];
    let received = recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_length_and_a_limit() {
        let bytes = encode(&"abc").unwrap();
        assert_eq!(bytes, b"\0\0\0\x05\"abc\"");
        assert_eq!(length([0, 0, 0, 5]).unwrap(), 5);
        assert_eq!(decode::<String>(&bytes[4..]).unwrap(), "abc");
        assert!(decode::<u32>(&bytes[4..]).is_err());

        let most = u32::try_from(MESSAGE_BYTES_MAX).unwrap();
        assert!(length(most.to_be_bytes()).is_ok());
        assert!(length((most + 1).to_be_bytes()).is_err());
        // Two quotes belong to the text.
        assert!(encode(&"a".repeat(MESSAGE_BYTES_MAX - 2)).is_ok());
        assert!(encode(&"a".repeat(MESSAGE_BYTES_MAX - 1)).is_err());
    }
}
