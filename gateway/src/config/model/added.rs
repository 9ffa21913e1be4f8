//! The header fields by which the gateway tells of itself and of the client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A field the gateway adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddedHeader {
    /// The client's address, after those of trusted proxies.
    XForwardedFor,
    /// The scheme the client uses.
    XForwardedProto,
    /// The host the client asked for.
    XForwardedHost,
    /// All of that in one field (RFC 7239).
    Forwarded,
    /// The certificate the client has shown, if it is valid (`Hash`, `Subject`, `URI`, `DNS`).
    XForwardedClientCert,
    /// This hop, in requests and in responses (RFC 9110 section 7.6.3).
    Via,
}

impl AddedHeader {
    /// All there are, which is the default.
    pub const ALL: [Self; 6] = [
        Self::XForwardedFor,
        Self::XForwardedProto,
        Self::XForwardedHost,
        Self::Forwarded,
        Self::XForwardedClientCert,
        Self::Via,
    ];
}

/// Which fields the gateway adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedHeaders(u8);

impl AddedHeaders {
    /// Whether the field is added.
    pub fn contain(self, header: AddedHeader) -> bool {
        self.0 & 1 << header as u8 != 0
    }
}

impl FromIterator<AddedHeader> for AddedHeaders {
    fn from_iter<I: IntoIterator<Item = AddedHeader>>(headers: I) -> Self {
        let bit = |bits, header: AddedHeader| bits | 1 << header as u8;
        Self(headers.into_iter().fold(0, bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        for header in AddedHeader::ALL {
            let one = AddedHeaders::from_iter([header, header]);
            let all_but_one = AddedHeader::ALL
                .into_iter()
                .filter(|other| *other != header);
            let others: AddedHeaders = all_but_one.collect();
            for other in AddedHeader::ALL {
                assert_eq!(one.contain(other), other == header, "{header:?} {other:?}");
                assert_eq!(
                    others.contain(other),
                    other != header,
                    "{header:?} {other:?}"
                );
            }
        }
    }
}
