//! VLAN tags (IEEE 802.1Q and 802.1ad).

use super::{ether_type, header};

header! {
    /// What follows the tag's own EtherType: priority and VLAN id, then the next EtherType.
    Vlan, u16, 2
}

impl Vlan {
    /// Tags that are followed: a service tag and a customer tag.
    pub const TAGS_MAX: usize = 2;

    /// True when this EtherType announces a tag.
    #[inline(always)]
    pub fn announced_by(kind: u16) -> bool {
        kind == ether_type::VLAN || kind == ether_type::VLAN_SERVICE
    }

    /// What follows the tag: one of [`ether_type`].
    #[inline(always)]
    pub const fn ether_type(&self) -> u16 {
        self.0[1]
    }
}
